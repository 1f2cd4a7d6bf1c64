//! What an emulated node needs: patience, and a second try for a fault that is the emulator's own.
//!
//! Under TCG about one nested guest in a hundred triple-faults, QEMU's own microvm among them. A test that failed with
//! such a fault in one of its containers runs once more, and the second result counts; it is said that it did.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::process;

const FAULT: &str = "triple-faulted";
const FOLDER: &str = "/etc/nacre/conf.d";
const PATIENCE: &str = "/etc/nacre/conf.d/50-nacre-tests.toml";

/// Gives guests more time to start than they need on real processors.
pub fn be_patient() -> Outcome {
    if !Path::new("/etc/nacre").exists() {
        return Ok(());
    }
    fs::create_dir_all(FOLDER).map_err(Failure::io(format!("can't make {FOLDER}")))?;
    fs::write(PATIENCE, "[timeouts]\nstart_seconds = 180\n")
        .map_err(Failure::io(format!("can't write {PATIENCE}")))
}

/// Ends what [`be_patient`] began.
pub fn be_impatient() {
    let _ = fs::remove_file(PATIENCE);
}

/// Whether a guest of a test triple-faulted: the test's output says so, or containerd's log in a line with one of
/// `parts`, which tell of the test.
pub fn faulted(parts: &[String], output: &str) -> bool {
    if output.contains(FAULT) {
        return true;
    }
    let mut journal = Command::new("journalctl");
    journal.args(["--unit", "containerd", "--output", "cat", "--since", "-15min"]);
    let log = process::run(&mut journal).map(|finished| finished.stdout).unwrap_or_default();
    log.lines().any(|line| line.contains(FAULT) && parts.iter().any(|part| line.contains(part.as_str())))
}
