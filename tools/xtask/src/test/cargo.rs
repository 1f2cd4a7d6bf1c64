//! Unit tests, by cargo, and what its runner prints.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Command;

use super::summary::{Outcome, Summary};
use super::{firmware, headers, plans};
use crate::cache;
use crate::command;
use crate::error::{self, Error};
use crate::progress::Note;

/// cargo, in the checkout.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(cache::checkout());
    cargo
}

/// Runs the workspace's unit tests and adds them to the summary.
///
/// # Errors
/// cargo can't be started.
pub fn unit_tests(summary: &mut Summary, filter: Option<&str>, note: &Note) -> Result<(), Error> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast", "--color=never"]);
    test.args(filter);
    match headers::folder() {
        Ok(folder) => {
            test.env("NACRE_KERNEL_HEADERS", folder);
        }
        // The test that needs them says that it did not run.
        Err(why) => eprintln!("no kernel headers: {}", error::chain(&why)),
    }
    match firmware::folder() {
        Ok(folder) => {
            test.env("NACRE_FIRMWARE", folder);
        }
        // So do these.
        Err(why) => eprintln!("no firmware: {}", error::chain(&why)),
    }
    if plans::wanted(filter) {
        match plans::dump() {
            Ok(folder) => {
                test.env("NACRE_PLANS", folder);
            }
            // The tests that need them say that they did not run.
            Err(why) => eprintln!("no plans of the real guest: {}", error::chain(&why)),
        }
    }
    let mut report = Report::default();
    let ended = command::run_watched("test-unit", &mut test, |line| {
        report.line(line);
        if let Some(unit) = &report.unit {
            note.set(format!("{} so far, in {unit}", report.outcomes.len()));
        }
    });
    let found_failure = report.outcomes.values().any(|outcome| matches!(outcome, Outcome::Failed(_)));
    for (name, outcome) in report.finish() {
        summary.add(&name, outcome);
    }
    match ended {
        // A test that failed makes cargo fail; anything else is a failure of its own.
        Err(Error::Ended { tail, log, .. }) if !found_failure => {
            summary
                .add("unit tests", Outcome::Failed(format!("cargo failed, see {}\n{tail}", log.display())));
            Ok(())
        }
        Err(Error::Ended { .. }) | Ok(()) => Ok(()),
        Err(other) => Err(other),
    }
}

/// What the runner printed so far.
#[derive(Default)]
struct Report {
    /// The crate and target whose tests run.
    unit: Option<String>,
    outcomes: BTreeMap<String, Outcome>,
    /// The test whose output the runner shows, after all tests of a target.
    shown: Option<String>,
    /// Tests that said themselves that they can't run here, past the runner, to which they passed.
    not_run: Vec<(String, String)>,
}

impl Report {
    fn line(&mut self, line: &str) {
        let trimmed = line.trim_start();
        if let Some((name, why)) = line.strip_prefix("NOT RUN HERE ").and_then(|rest| rest.split_once(": ")) {
            self.not_run.push((self.full_name(name), why.to_owned()));
        } else if let Some(rest) = trimmed.strip_prefix("Running ") {
            self.begin(unit_of(rest));
        } else if let Some(rest) = trimmed.strip_prefix("Doc-tests ") {
            self.begin(format!("{rest} (documentation)"));
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.shown = Some(self.full_name(name));
        } else if line == "failures:" || line.starts_with("test result:") {
            self.shown = None;
        } else if let Some(shown) = &self.shown {
            if let Some(Outcome::Failed(text)) = self.outcomes.get_mut(shown) {
                text.push_str(line);
                text.push('\n');
            }
        } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(outcome) {
            let name = self.full_name(name);
            self.outcomes.insert(name, outcome);
        }
    }

    fn begin(&mut self, unit: String) {
        self.unit = Some(unit);
        self.shown = None;
    }

    fn full_name(&self, name: &str) -> String {
        format!("{} {name}", self.unit.as_deref().unwrap_or("?"))
    }

    fn finish(mut self) -> impl Iterator<Item = (String, Outcome)> {
        let skipped = self.not_run.into_iter().map(|(name, why)| (name, Outcome::Skipped(why)));
        self.outcomes.extend(skipped);
        self.outcomes.into_iter()
    }
}

/// `nacre_vmm` of `unittests src/lib.rs (target/debug/deps/nacre_vmm-0123456789abcdef)`.
fn unit_of(running: &str) -> String {
    let file = running.rsplit(['/', '(']).next().unwrap_or(running).trim_end_matches(')');
    file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned()
}

/// `name ... ok`, `name ... FAILED`, `name ... ignored, why`.
fn outcome(line: &str) -> Option<(&str, Outcome)> {
    let (name, result) = line.rsplit_once(" ... ")?;
    let name = name.split_once(" - should panic").map_or(name, |(name, _)| name);
    let outcome = match result {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed(String::new()),
        other => Outcome::Skipped(other.strip_prefix("ignored")?.trim_start_matches(", ").to_owned()),
    };
    Some((name, outcome))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Report};

    fn outcomes(text: &str) -> Vec<(String, Outcome)> {
        let mut report = Report::default();
        text.lines().for_each(|line| report.line(line));
        report.finish().collect()
    }

    #[test]
    fn reads_the_runners_report() {
        let text = "   Compiling nacre-vmm v0.1.0\n\
            \x20    Running unittests src/lib.rs (target/debug/deps/nacre_vmm-00ff)\n\
            running 3 tests\n\
            test memory::one ... ok\n\
            test memory::two ... FAILED\n\
            test memory::three ... ignored, needs TDX\n\
            \n\
            failures:\n\
            \n\
            ---- memory::two stdout ----\n\
            assertion failed: left == right\n\
            \n\
            failures:\n\
            \x20   memory::two\n\
            \n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored\n";
        let failed = "assertion failed: left == right\n\n".to_owned();
        assert_eq!(
            outcomes(text),
            [
                ("nacre_vmm memory::one".into(), Outcome::Passed),
                ("nacre_vmm memory::three".into(), Outcome::Skipped("needs TDX".into())),
                ("nacre_vmm memory::two".into(), Outcome::Failed(failed)),
            ]
        );
    }

    #[test]
    fn a_test_that_cannot_run_here_is_no_passed_one() {
        let text = "     Running tests/a.rs (t/a-1)\nNOT RUN HERE net::tap: no tap\ntest net::tap ... ok\n";
        assert_eq!(outcomes(text), [("a net::tap".into(), Outcome::Skipped("no tap".into()))]);
    }

    #[test]
    fn tells_the_same_name_in_two_targets_apart() {
        let text = "     Running unittests src/main.rs (t/a-1)\ntest works ... ok\n   Doc-tests a\ntest works ... ok\n";
        assert_eq!(outcomes(text).len(), 2);
    }
}
