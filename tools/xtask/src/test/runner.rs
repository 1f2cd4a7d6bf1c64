//! Runs a runner's tests in a test node and reads how they ended.

use super::summary::Outcome;
use crate::error::Error;
use crate::node::Node;

/// Runs a program in the node's payload that runs tests and prints a line for each; of its tests those whose name
/// contains `filter`. Gives each one's outcome to `ended`, with its name; those that had ended also when the rest fails.
///
/// # Errors
/// The node died, or the program failed by itself.
pub fn run(
    node: &Node,
    program: &[&str],
    filter: Option<&str>,
    mut ended: impl FnMut(String, Outcome),
) -> Result<(), Error> {
    let command: Vec<&str> = program.iter().copied().chain(filter).collect();
    let mut lines = Lines::default();
    let result = node.lines(&command, |line| {
        eprintln!("{line}");
        lines.read(line);
    });
    let any_failed = lines.any_failed();
    lines.0.into_iter().for_each(|(name, outcome)| ended(name, outcome));
    let status = result?;
    if status.success() || any_failed {
        return Ok(());
    }
    let program = program.first().copied().unwrap_or_default();
    Err(Error::Task(format!("{program} ended with {status}, and no test failed")))
}

/// The tests that have ended, in their order.
#[derive(Debug, Default)]
struct Lines(Vec<(String, Outcome)>);

impl Lines {
    /// Takes a line of the runner's.
    fn read(&mut self, line: &str) {
        match self.0.last_mut() {
            // What goes with a failure is indented below it.
            Some((_, Outcome::Failed(text))) if line.starts_with(' ') => text.extend(["\n", line.trim()]),
            _ => self.0.extend(outcome(line)),
        }
    }

    fn any_failed(&self) -> bool {
        self.0.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }
}

/// `PASS name (0.5 s)`, `FAIL name: what`, `SKIP name: why`.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let (word, rest) = line.split_once(' ')?;
    let (name, text) = rest.split_once(": ").unwrap_or((rest, ""));
    let outcome = match word {
        "PASS" => return Some((rest.split(' ').next()?.to_owned(), Outcome::Passed)),
        "FAIL" => Outcome::Failed(text.to_owned()),
        "SKIP" => Outcome::Skipped(text.to_owned()),
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::{Lines, Outcome, outcome};

    #[test]
    fn reads_the_runners_lines_and_no_others() {
        assert_eq!(outcome("PASS exit-code (1.5 s)"), Some(("exit-code".into(), Outcome::Passed)));
        let failed = Outcome::Failed("expected 42: got 1".into());
        assert_eq!(outcome("FAIL exit-code: expected 42: got 1"), Some(("exit-code".into(), failed)));
        assert_eq!(
            outcome("SKIP snp: no hardware"),
            Some(("snp".into(), Outcome::Skipped("no hardware".into())))
        );
        assert_eq!(outcome("3 passed, 0 failed, 1 skipped"), None);
        assert_eq!(outcome("  PASSED some detail"), None);
    }

    #[test]
    fn what_is_indented_belongs_to_the_failure_above() {
        let mut lines = Lines::default();
        for line in ["PASS one (1.0 s)", "FAIL two: bad", "    after 3 s", "SKIP three: no"] {
            lines.read(line);
        }
        assert!(lines.any_failed());
        let two = ("two".to_owned(), Outcome::Failed("bad\nafter 3 s".into()));
        assert_eq!(lines.0.get(1), Some(&two));
    }
}
