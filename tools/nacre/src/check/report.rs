//! What was found, and how it is shown.

use std::fmt::Write;

use crate::table;

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There, and usable.
    Ok,
    /// Not there, or not usable.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// Whether pods cannot run without it.
    pub needed: bool,
    /// What was found.
    pub found: String,
    /// What to do about it, if there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_do: Option<String>,
}

impl Finding {
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, needed: true, found: found.into(), to_do: None }
    }

    pub fn missing(name: &'static str, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name, state: State::Missing, needed: true, found: found.into(), to_do: Some(to_do.into()) }
    }

    /// Good to have, but pods run without it.
    #[must_use]
    pub fn not_needed(self) -> Self {
        Self { needed: false, ..self }
    }

    /// A word of advice for something that is there.
    #[must_use]
    pub fn but(self, to_do: impl Into<String>) -> Self {
        Self { to_do: Some(to_do.into()), ..self }
    }

    fn word(&self) -> &'static str {
        match (self.state, self.needed) {
            (State::Ok, _) => "ok",
            (State::Missing, true) => "missing",
            (State::Missing, false) => "(missing)",
        }
    }
}

/// All findings, in groups.
#[derive(Debug, Default)]
pub struct Report {
    groups: Vec<(&'static str, Vec<Finding>)>,
}

/// A finding with its group, as in the list of JSON.
#[derive(serde::Serialize)]
struct Listed<'a> {
    group: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    pub fn add(&mut self, group: &'static str, findings: impl IntoIterator<Item = Finding>) {
        self.groups.push((group, findings.into_iter().collect()));
    }

    /// Nothing that is needed is missing.
    pub fn complete(&self) -> bool {
        self.lacking() == 0
    }

    fn lacking(&self) -> usize {
        let all = self.groups.iter().flat_map(|(_, findings)| findings);
        all.filter(|finding| finding.needed && finding.state == State::Missing).count()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = Vec::new();
        for (group, findings) in &self.groups {
            if !rows.is_empty() {
                rows.push(None);
            }
            for (index, finding) in findings.iter().enumerate() {
                let group = if index == 0 { *group } else { "" };
                let cells = [group, finding.name, finding.word(), &finding.found];
                rows.push(Some(cells.map(str::to_owned)));
                let advice = finding.to_do.iter().flat_map(|to_do| to_do.lines());
                rows.extend(advice.map(|line| Some(["", "", "", &format!("> {line}")].map(str::to_owned))));
            }
        }
        let mut text = table::lay_out(&rows);
        // Writing to a String cannot fail.
        let _ = match self.lacking() {
            0 => writeln!(text, "\nThis host can run pods with nacre."),
            1 => writeln!(text, "\nThis host cannot run pods with nacre yet: 1 thing is missing."),
            count => {
                writeln!(text, "\nThis host cannot run pods with nacre yet: {count} things are missing.")
            }
        };
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let list: Vec<Listed<'_>> = self
            .groups
            .iter()
            .flat_map(|(group, findings)| findings.iter().map(|finding| Listed { group, finding }))
            .collect();
        serde_json::to_string_pretty(&list).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: impl IntoIterator<Item = Finding>) -> Report {
        let mut report = Report::default();
        report.add("group", findings);
        report
    }

    #[test]
    fn what_is_not_needed_may_be_missing() {
        let missing = Finding::missing("tdx", "none", "buy one");
        assert!(report([Finding::ok("kvm", ""), missing.clone().not_needed()]).complete());
        assert!(!report([Finding::ok("kvm", ""), missing]).complete());
    }

    #[test]
    fn the_table_says_what_to_do() {
        let text =
            report([Finding::ok("kvm", "works"), Finding::missing("shim", "not there", "copy it\nthen run")]);
        let expected = "\
group  kvm   ok       works
       shim  missing  not there
                      > copy it
                      > then run

This host cannot run pods with nacre yet: 1 thing is missing.
";
        assert_eq!(text.table(), expected);
    }

    #[test]
    fn json_is_a_list_with_everything() {
        let json: serde_json::Value =
            serde_json::from_str(&report([Finding::ok("kvm", "works")]).json()).unwrap();
        let expected = serde_json::json!([{"group": "group", "name": "kvm", "state": "ok", "needed": true, "found": "works"}]);
        assert_eq!(json, expected);
    }
}
