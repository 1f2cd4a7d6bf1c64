//! The tests that run in the test node, and what becomes of them when the node dies.

use super::summary::{Outcome, Summary};
use crate::error::{self, Error};
use crate::node::{Failure, Kernel, Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;

/// The runtimes that the suite runs with. runc's results check the suite itself.
const RUNTIMES: [&str; 2] = ["io.containerd.runc.v2", "io.containerd.nacre.v2"];

/// Nodes that a suite may use up: an emulated node's kernel has been seen to die after four minutes, and others to
/// live for an hour.
const NODES: usize = 4;

/// The suite's runner in the node.
const RUNNER: &str = "/payload/bin/nacre-tests";

/// Runs the suite with each runtime. What keeps it from running is a failure in the summary.
pub fn tests(summary: &mut Summary, suite: Suite, filter: Option<&str>) {
    if let Err(why) = try_tests(summary, suite, filter) {
        error::print_chain(&why);
        summary.add("tests in the node", Outcome::Failed(error::chain(&why)));
    }
}

fn try_tests(summary: &mut Summary, suite: Suite, filter: Option<&str>) -> Result<(), Error> {
    let mut progress = Progress::new(&payload::STEPS);
    let payload = payload::build(&mut progress)?;
    let settings = Settings::new(suite, Some(payload));
    let mut result = Ok(());
    for runtime in RUNTIMES {
        result = with_runtime(summary, &settings, runtime, filter);
        if result.is_err() {
            break;
        }
    }
    let down = Node::find(settings.suite, &settings.name).and_then(Node::down);
    result.and(match down {
        // It died, and was cleared away then.
        Err(Error::Node(Failure::NotUp { .. })) => Ok(()),
        other => other,
    })
}

/// Runs the suite with one runtime. When the node dies under it, the tests that had not ended run in a new one.
fn with_runtime(
    summary: &mut Summary,
    settings: &Settings,
    runtime: &str,
    filter: Option<&str>,
) -> Result<(), Error> {
    let mut ended = Ended::default();
    for attempt in 1..=NODES {
        let node = Node::fresh(settings)?;
        let without = ended.names();
        let mut command = vec![RUNNER, "run", "--runtime", runtime];
        command.extend(filter);
        if !without.is_empty() {
            command.extend(["--without", &without]);
        }
        let result = node.lines(&command, |line| {
            eprintln!("{line}");
            if let Some((name, why)) = line.strip_prefix("AGAIN ").and_then(|rest| rest.split_once(": ")) {
                summary.tried_again(&format!("{runtime} {name}"), why);
            }
            ended.read(line);
        });
        match result {
            Ok(status) => {
                let failed = ended.any_failed();
                for (name, outcome) in ended.0 {
                    summary.add(&format!("{runtime} {name}"), outcome);
                }
                if !status.success() && !failed {
                    let what = format!("{RUNNER} ended with {status}");
                    summary.add(&format!("suite with {runtime}"), Outcome::Failed(what));
                }
                return Ok(());
            }
            Err(why @ Error::Node(Failure::Died { .. })) if attempt < NODES => {
                error::print_chain(&why);
                ended.forget_failures();
                eprintln!("{} tests had ended; a new node takes the others", ended.0.len());
                summary.tried_again(&format!("{runtime}: node {attempt}"), &why.to_string());
                node.down()?;
            }
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// Tests that make virtual machines of their own, without containerd.
struct Group {
    /// How their names begin.
    prefix: &'static str,
    /// The kernel that they need.
    kernel: Kernel,
    /// What runs them; a filter follows.
    runner: &'static [&'static str],
}

const MACHINES: &[&str] = &["/payload/bin/nacre-machine-tests"];
const STAGE0: &[&str] = &["/payload/bin/nacre-stage0-harness", "--stage0", "/payload/share/stage0.bin"];

/// Tests of the VMM's own code, one group of which needs software-protected machines, and of stage0.
const GROUPS: [Group; 3] = [
    Group { prefix: "stage0-", kernel: Kernel::Debian, runner: STAGE0 },
    Group { prefix: "tamper-", kernel: Kernel::Debian, runner: MACHINES },
    Group { prefix: "protected-", kernel: Kernel::Protected, runner: MACHINES },
];

/// Runs [`GROUPS`], each in a node of its own.
pub fn machines(summary: &mut Summary, suite: Suite, filter: Option<&str>) {
    for group in &GROUPS {
        let prefix = group.prefix;
        if filter.is_none_or(|filter| filter.starts_with(prefix) || prefix.contains(filter))
            && let Err(why) = try_machines(summary, suite, group, filter.unwrap_or(prefix))
        {
            error::print_chain(&why);
            summary.add(&format!("{prefix}* in the node"), Outcome::Failed(error::chain(&why)));
        }
    }
}

fn try_machines(summary: &mut Summary, suite: Suite, group: &Group, filter: &str) -> Result<(), Error> {
    let kernel = group.kernel;
    let runner = group.runner.first().copied().unwrap_or_default();
    let command = [group.runner, &[filter]].concat();
    let mut progress = Progress::new(&payload::STEPS);
    let payload = payload::build(&mut progress)?;
    let settings = Settings { kernel, name: "machines".into(), ..Settings::new(suite, Some(payload)) };
    for attempt in 1..=NODES {
        let node = Node::fresh(&settings)?;
        let mut outcomes = Vec::new();
        let ended = node.lines(&command, |line| {
            eprintln!("{line}");
            if let Some((name, why)) = line.strip_prefix("AGAIN ").and_then(|rest| rest.split_once(": ")) {
                summary.tried_again(name, why);
            }
            outcomes.extend(outcome(line));
        });
        match ended {
            Ok(status) => {
                if outcomes.is_empty() {
                    let what = format!("{runner} ended with {status} and ran nothing");
                    summary.add(filter, Outcome::Failed(what));
                }
                outcomes.into_iter().for_each(|(name, outcome)| summary.add(&name, outcome));
                return node.down();
            }
            Err(why @ Error::Node(Failure::Died { .. })) if attempt < NODES => {
                error::print_chain(&why);
                node.down()?;
            }
            Err(why) => return Err(why),
        }
    }
    Ok(())
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

    /// A node that died may have failed tests before it was gone; those run again.
    fn forget_failures(&mut self) {
        self.0.retain(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)));
    }

    /// Their names, with commas between.
    fn names(&self) -> String {
        self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// `PASS name (0.5 s)`, `FAIL name: what`, `SKIP name: why`.
pub(super) fn outcome(line: &str) -> Option<(String, Outcome)> {
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
        assert_eq!(ended.names(), "one,three");
    }
}
