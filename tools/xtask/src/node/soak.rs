//! `cargo xtask node soak`: virtual machines without pause, to see how long a node of this setting lives.

use std::time::{Duration, Instant};

use super::Node;
use crate::error::Error;
use crate::progress::{Progress, seconds};

/// Runs in the node.
const SCRIPT: &str = include_str!("soak");

/// Starts virtual machines in the node for this long and prints how many.
///
/// # Errors
/// The node died, or a machine in it did not start.
pub fn run(node: &Node, length: Duration) -> Result<(), Error> {
    let began = Instant::now();
    let (mut started, mut failed) = (0_u64, 0_u64);
    let length = length.as_secs().to_string();
    let result = Progress::new(&["soak"]).step_with_note(|note| {
        node.lines(&["sh", "-c", SCRIPT, "soak", &length], |line| {
            match line {
                "started" => started += 1,
                _ => failed += 1,
            }
            note.set(format!("{started} machines started, {failed} failed"));
        })
    });
    println!("{started} machines started and {failed} failed in {}", seconds(began.elapsed()));
    match result? {
        status if status.success() && failed == 0 => Ok(()),
        status => Err(Error::Task(format!("{failed} machines did not start; the loop ended with {status}"))),
    }
}
