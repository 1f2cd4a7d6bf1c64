//! Results of the CRI suite: for programs as they are, for people as a table.

use std::fmt::Write;

use serde::Serialize;

use crate::test::summary::{Outcome, Summary};

/// The result of one test with one runtime on one containerd.
#[derive(Debug, Serialize)]
pub struct Row {
    group: String,
    test: String,
    containerd: String,
    runtime: String,
    result: &'static str,
    reason: String,
    #[serde(skip)]
    name: String,
}

impl Row {
    /// Of the test `group/test`.
    pub fn new(name: &str, containerd: &str, runtime: &str, outcome: Outcome) -> Self {
        let (group, test) = name.split_once('/').unwrap_or(("node", name));
        let (result, reason) = match outcome {
            Outcome::Passed => ("passed", String::new()),
            Outcome::Failed(what) => ("failed", what),
            Outcome::Skipped(why) => ("skipped", why),
        };
        Self {
            group: group.to_owned(),
            test: test.to_owned(),
            containerd: containerd.to_owned(),
            runtime: runtime.to_owned(),
            result,
            reason,
            name: name.to_owned(),
        }
    }

    /// The test's whole name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds it to the summary of all checks.
    pub fn count(self, summary: &mut Summary) {
        let outcome = match self.result {
            "passed" => Outcome::Passed,
            "failed" => Outcome::Failed(self.reason),
            _ => Outcome::Skipped(self.reason),
        };
        summary.add(&format!("CRI {} {} {}", self.containerd, self.runtime, self.name), outcome);
    }
}

/// A line for each test and containerd, with both runtimes' results and the reason where they differ or one is not
/// passed.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:36} {:10} {:8} {:8} {}\n",
        "test", "containerd", "runc", "nacre", "reason of a difference"
    );
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let key = (row.name(), row.containerd.as_str());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let of = |runtime: &str| {
            rows.iter()
                .find(|other| (other.name(), other.containerd.as_str()) == key && other.runtime == runtime)
        };
        let (runc, nacre) = (of("runc"), of("nacre"));
        let result = |row: Option<&Row>| row.map_or("-", |row| row.result);
        let reason = [nacre, runc].into_iter().flatten().find(|row| !row.reason.is_empty());
        let reason = reason.and_then(|row| row.reason.lines().next()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:36} {:10} {:8} {:8} {reason}",
            row.name(),
            row.containerd,
            result(runc),
            result(nacre)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Row, table};

    #[test]
    fn runtimes_stand_side_by_side_with_the_reason_of_a_difference() {
        let skipped = Outcome::Skipped("a machine of its own".into());
        let rows = [
            Row::new("pods/host-pid", "1.7.24", "runc", Outcome::Passed),
            Row::new("pods/host-pid", "1.7.24", "nacre", skipped),
            Row::new("pods/host-pid", "2.1.4", "runc", Outcome::Passed),
        ];
        let text = table(&rows);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["pods/host-pid", "1.7.24", "passed", "skipped"]);
        assert!(text.contains("a machine of its own"));
        assert_eq!(lines[2][..], ["pods/host-pid", "2.1.4", "passed", "-"]);
    }

    #[test]
    fn results_have_exactly_the_agreed_fields() {
        let row = Row::new("size/limits", "2.1.4", "nacre", Outcome::Failed("no".into()));
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"group":"size","test":"limits","containerd":"2.1.4","runtime":"nacre","result":"failed","reason":"no"}"#
        );
    }
}
