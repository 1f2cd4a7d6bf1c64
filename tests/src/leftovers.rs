//! After a test: removing its containers, and looking for what is still there.

use std::time::Duration;

use crate::cases;
use crate::context::{Context, ctr, prefix};
use crate::cri::{self, Traces};
use crate::disturbance;
use crate::failure::{Failure, Outcome, wrong};
use crate::listing::Listing;
use crate::options::Options;
use crate::process;
use crate::wait::eventually;

/// How long what was removed may take to be gone.
const LIMIT: Duration = Duration::from_secs(30);

/// What lines of a listing contain that are about this test.
fn parts(test: &str) -> Vec<String> {
    if cases::is_cri(test) { Traces::of(test).parts() } else { vec![prefix(test)] }
}

/// Undoes the test's faults and removes its containers or pods.
pub fn remove(options: &Options, test: &str) {
    disturbance::undo();
    if cases::is_cri(test) {
        cri::clean(&Context::new(options, test));
        return;
    }
    remove_containers(options, |name| name.starts_with(&prefix(test)));
}

/// Removes from containerd every container, running or not, whose name is one of `these`.
pub fn remove_containers(options: &Options, these: impl Fn(&str) -> bool) {
    let run = |words: &[&str]| process::run(ctr(options).args(words));
    let ours = |words: &[&str]| -> Vec<String> {
        let table = run(words).map(|finished| finished.stdout).unwrap_or_default();
        let names = table.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|name| these(name)).map(str::to_owned).collect()
    };
    // Failures show as leftovers.
    for task in ours(&["task", "ls", "--quiet"]) {
        let _ = run(&["task", "delete", "--force", &task]);
    }
    for container in ours(&["container", "ls", "--quiet"]) {
        let _ = run(&["container", "delete", &container]);
    }
    for snapshot in ours(&["snapshot", "ls"]) {
        let _ = run(&["snapshot", "delete", &snapshot]);
    }
}

/// Whether anything may carry the test's name at this moment.
pub fn any(options: &Options, test: &str) -> bool {
    cases::is_cri(test) || !Listing::now(options).matching(&parts(test)).is_empty()
}

/// Looks for anything that carries the test's name.
///
/// # Errors
/// Something does, and stays.
pub fn search(options: &Options, test: &str) -> Outcome {
    eventually(LIMIT, || {
        let found = Listing::now(options).matching(&parts(test));
        if found.is_empty() { Ok(()) } else { wrong(format!("left behind:\n  {}", found.join("\n  "))) }
    })
}

/// Compares the node with what it was before.
///
/// # Errors
/// It is not the same, and does not become so.
pub fn compare(options: &Options, before: &Listing) -> Result<(), Failure> {
    eventually(LIMIT, || {
        let changes = Listing::now(options).changes_since(before);
        if changes.is_empty() { Ok(()) } else { wrong(format!("not as before:\n  {}", changes.join("\n  "))) }
    })
}
