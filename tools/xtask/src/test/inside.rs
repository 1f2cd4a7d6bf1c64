//! The tests that run in the test node.

use super::runner;
use super::summary::{Outcome, Summary};
use crate::error::{self, Error};
use crate::node::{Failure, Kernel, Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;

/// The runtimes that the suite runs with. runc's results check the suite itself.
const RUNTIMES: [&str; 2] = ["io.containerd.runc.v2", "io.containerd.nacre.v2"];

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
    let ran = RUNTIMES.into_iter().try_for_each(|runtime| with_runtime(summary, &settings, runtime, filter));
    ran.and(down(&settings))
}

fn with_runtime(
    summary: &mut Summary,
    settings: &Settings,
    runtime: &str,
    filter: Option<&str>,
) -> Result<(), Error> {
    let program = [RUNNER, "run", "--runtime", runtime];
    runner::run(&Node::fresh(settings)?, &program, filter, |name, outcome| {
        summary.add(&format!("{runtime} {name}"), outcome);
    })
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
const GROUPS: [Group; 4] = [
    Group { prefix: "stage0-", kernel: Kernel::Debian, runner: STAGE0 },
    Group { prefix: "end-", kernel: Kernel::Debian, runner: MACHINES },
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
    let mut progress = Progress::new(&payload::STEPS);
    let payload = payload::build(&mut progress)?;
    let settings =
        Settings { kernel: group.kernel, name: "machines".into(), ..Settings::new(suite, Some(payload)) };
    let mut any = false;
    let ran = runner::run(&Node::fresh(&settings)?, group.runner, Some(filter), |name, outcome| {
        any = true;
        summary.add(&name, outcome);
    });
    down(&settings).and(ran)?;
    if !any {
        summary.add(filter, Outcome::Failed("no test has such a name".into()));
    }
    Ok(())
}

/// Ends the node of these settings, if it has not died.
pub(super) fn down(settings: &Settings) -> Result<(), Error> {
    match Node::find(settings.suite, &settings.name).and_then(Node::down) {
        // It died, and was cleared away then.
        Err(Error::Node(Failure::NotUp { .. })) => Ok(()),
        other => other,
    }
}
