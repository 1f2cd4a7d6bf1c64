//! What the checks found.

use std::fmt::{self, Display, Formatter};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, and what it said.
    Failed(String),
    /// It could not run here, and why.
    Skipped(String),
}

/// The outcomes of all tests.
#[derive(Debug, Default)]
pub struct Summary {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Summary {
    /// Adds a test.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(what) => self.failed.push((name.to_owned(), what)),
            Outcome::Skipped(why) => self.skipped.push((name.to_owned(), why)),
        }
    }

    /// Whether any test failed.
    pub fn failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

impl Display for Summary {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let lists = [("could not run here", &self.skipped), ("failed", &self.failed)];
        for (title, list) in lists {
            if !list.is_empty() {
                writeln!(out, "\n{title}:")?;
            }
            for (name, text) in list {
                writeln!(out, "  {name}: {}", text.trim_end().replace('\n', "\n    "))?;
            }
        }
        write!(out, "\n{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Summary};

    #[test]
    fn names_what_failed_and_what_was_skipped_and_ends_with_the_counts() {
        let mut summary = Summary::default();
        summary.add("good", Outcome::Passed);
        summary.add("bad", Outcome::Failed("first\nsecond\n".into()));
        summary.add("elsewhere", Outcome::Skipped("no hardware".into()));
        let text = summary.to_string();
        assert!(text.contains("  bad: first\n    second\n"));
        assert!(text.contains("  elsewhere: no hardware\n"));
        assert_eq!(text.lines().last().unwrap(), "1 passed, 1 failed, 1 skipped");
        assert!(summary.failed());
    }
}
