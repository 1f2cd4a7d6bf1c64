//! Runs a runner's tests in test nodes: one that dies or hangs is replaced, and a new one goes on.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::summary::{Outcome, Summary};
use crate::error::{self, Error};
use crate::node::{Death, Failure, Node, Settings};

/// Nodes that a runner may use up: an emulated node's kernel has been seen to die after two minutes, and others to
/// live for an hour.
const NODES: usize = 5;

/// What the runner says of a test that came to no end. Either the test is wrong, or the node has lost a processor and
/// nothing comes to an end in it any more.
const HUNG: [&str; 2] = ["not finished within", "still runs after"];

/// A program in the node's payload that runs tests and prints a line for each.
#[derive(Debug)]
pub struct Runner<'a> {
    /// The program and its arguments.
    pub command: Vec<&'a str>,
    /// Only tests whose name contains this.
    pub filter: Option<&'a str>,
    /// Tests that are not to run, by name.
    pub leaving_out: &'a [&'a str],
    /// Whether the program can be told to leave out tests (`--without ONE,OTHER`). If not, a new node runs all again.
    pub resumes: bool,
    /// What goes before the names of tests in the summary.
    pub label: &'a str,
}

impl Runner<'_> {
    /// Runs the tests in a new node and returns how they ended. `prepare` is called for each node that is used. The last
    /// node stays up.
    ///
    /// # Errors
    /// A node does not come up, too many died, or the runner failed by itself.
    pub fn run(
        &self,
        settings: &Settings,
        summary: &mut Summary,
        mut prepare: impl FnMut(&Node) -> Result<(), Error>,
    ) -> Result<Vec<(String, Outcome)>, Error> {
        let mut ended = Ended::default();
        let mut hung = BTreeSet::new();
        for attempt in 1..=NODES {
            let node = Node::fresh(settings)?;
            prepare(&node)?;
            let without = [self.leaving_out, &ended.names()].concat().join(",");
            let mut command = self.command.clone();
            command.extend(self.filter);
            if !without.is_empty() {
                command.extend(["--without", &without]);
            }
            let result = node.lines_until(&command, |line| {
                eprintln!("{line}");
                if let Some((name, why)) = line.strip_prefix("AGAIN ").and_then(|rest| rest.split_once(": "))
                {
                    summary.tried_again(&format!("{}{name}", self.label), why);
                }
                ended.read(line);
                judge(&node, line, &ended, &mut hung)
            });
            match result {
                Ok(status) if !status.success() && !ended.any_failed() => {
                    let program = self.command.first().copied().unwrap_or_default();
                    return Err(Error::Task(format!("{program} ended with {status}, and no test failed")));
                }
                Ok(_) => return Ok(ended.0),
                Err(why @ Error::Node(Failure::Died { .. })) if attempt < NODES => {
                    error::print_chain(&why);
                    summary.tried_again(&format!("{}node {attempt}", self.label), &why.to_string());
                    node.down()?;
                    if self.resumes {
                        // A node that died may have failed tests before it was gone.
                        ended.forget_failures();
                    } else {
                        ended = Ended::default();
                    }
                    eprintln!("{} tests had ended; a new node takes the others", ended.0.len());
                }
                Err(why) => return Err(why),
            }
        }
        Ok(ended.0)
    }
}

/// Whether the node is dead by its console and by what a line of the runner says. A test that hangs gets a second node, and
/// is believed then.
fn judge(node: &Node, line: &str, ended: &Ended, hung: &mut BTreeSet<String>) -> ControlFlow<Death> {
    // A node has been seen to go on for minutes after an oops.
    if let Some(death) = node.death() {
        return ControlFlow::Break(death);
    }
    let failed = line.starts_with("FAIL ") || line.starts_with(' ');
    match ended.0.last() {
        Some((test, Outcome::Failed(_)))
            if failed && HUNG.iter().any(|sign| line.contains(sign)) && hung.insert(test.clone()) =>
        {
            ControlFlow::Break(Death::Hung { test: test.clone() })
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The tests that have ended, in their order.
#[derive(Debug, Default)]
struct Ended(Vec<(String, Outcome)>);

impl Ended {
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

    fn forget_failures(&mut self) {
        self.0.retain(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)));
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
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
    use super::{Ended, Outcome, outcome};

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
    fn a_new_node_is_told_what_passed_or_could_not_run() {
        let mut ended = Ended::default();
        for line in ["PASS one (1.0 s)", "FAIL two: bad", "    after 3 s", "SKIP three: no", "AGAIN four: x"]
        {
            ended.read(line);
        }
        assert!(ended.any_failed());
        ended.forget_failures();
        assert_eq!(ended.names(), ["one", "three"]);
    }
}
