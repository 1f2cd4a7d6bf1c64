//! What an emulated node needs: patience, and more tries for faults that are the emulator's own.
//!
//! Under TCG about one nested guest in a hundred triple-faults, QEMU's own microvm among them, and now and then one
//! stops for good. A test that failed so runs again, and the last result counts; it is said that it did, and why.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::process;

const FOLDER: &str = "/etc/nacre/conf.d";
const PATIENCE: &str = "/etc/nacre/conf.d/50-nacre-tests.toml";

/// A guest that has to share two emulated processors with nineteen others takes a minute for what is done in a second
/// otherwise: both for its start and for each answer of its agent.
const TIMEOUTS: &str = "[timeouts]\nstart_seconds = 180\nrequest_seconds = 180\n";

/// What the end of a test shows of an emulator's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A guest triple-faulted.
    TripleFault,
    /// A guest or the test itself did not go on, and nothing says why.
    Silence,
}

impl Fault {
    /// How often a test may be run in all, when this keeps happening. Of twenty guests at once one triple-faults in
    /// every fifth run. A guest that goes silent may well be our own mistake, so that gets one more try and no second.
    pub fn tries(self) -> usize {
        match self {
            Self::TripleFault => 5,
            Self::Silence => 2,
        }
    }

    /// What happened, for the report.
    pub fn text(self) -> &'static str {
        match self {
            Self::TripleFault => "a guest triple-faulted, which emulated nodes do at times",
            Self::Silence => "a guest went silent, which emulated nodes do at times",
        }
    }
}

/// Texts of failures, with the fault that they show.
const SIGNS: [(&str, Fault); 5] = [
    ("triple-faulted", Fault::TripleFault),
    ("the guest's agent did not answer", Fault::Silence),
    ("the guest's agent was not ready", Fault::Silence),
    ("still runs after", Fault::Silence),
    ("not finished within", Fault::Silence),
];

/// Gives guests more time than they need on real processors.
pub fn be_patient() -> Outcome {
    if !Path::new("/etc/nacre").exists() {
        return Ok(());
    }
    fs::create_dir_all(FOLDER).map_err(Failure::io(format!("can't make {FOLDER}")))?;
    fs::write(PATIENCE, TIMEOUTS).map_err(Failure::io(format!("can't write {PATIENCE}")))
}

/// Ends what [`be_patient`] began.
pub fn be_impatient() {
    let _ = fs::remove_file(PATIENCE);
}

/// The emulator's fault that made a test fail, if it was one: the test's output says so, or containerd's log in a line
/// with one of `parts`, which tell of the test.
pub fn fault(parts: &[String], output: &str) -> Option<Fault> {
    if !is_emulated() {
        return None;
    }
    let mut journal = Command::new("journalctl");
    journal.args(["--unit", "containerd", "--output", "cat", "--since", "-15min"]);
    let log = process::run(&mut journal).map(|finished| finished.stdout).unwrap_or_default();
    let ours = |line: &&str| parts.iter().any(|part| line.contains(part.as_str()));
    let own = log.lines().filter(ours).collect::<Vec<_>>().join("\n");
    // A triple fault explains a silence.
    sign(output).filter(|fault| *fault == Fault::TripleFault).or_else(|| sign(&own)).or_else(|| sign(output))
}

fn sign(text: &str) -> Option<Fault> {
    SIGNS.iter().find(|(sign, _)| text.contains(sign)).map(|(_, fault)| *fault)
}

/// Whether the node's processors are QEMU's, not KVM's. A node that can't tell is taken for a real one.
fn is_emulated() -> bool {
    let mut detect = Command::new("systemd-detect-virt");
    detect.arg("--vm");
    process::run(&mut detect).is_ok_and(|finished| finished.stdout.trim() == "qemu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_from_failures() {
        assert_eq!(sign("ctr: the guest triple-faulted: context"), Some(Fault::TripleFault));
        let silent = "the guest's agent did not answer create_sandbox within 60 s: context deadline exceeded";
        assert_eq!(sign(silent), Some(Fault::Silence));
        assert_eq!(sign("exit status: found 1, wanted 42"), None);
    }
}
