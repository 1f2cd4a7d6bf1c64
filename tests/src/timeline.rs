//! The lines that nacre writes about starts of VMs.

use std::fs;

use serde_json::Value;

use crate::failure::{Failure, Outcome, check, wrong};

/// The file that all pods write to.
pub const TIMELINE: &str = "/var/log/nacre/launches.jsonl";

/// What nacre wrote about the start of this container's VM.
pub fn of(id: &str) -> Result<Value, Failure> {
    let text = fs::read_to_string(TIMELINE).map_err(Failure::io(TIMELINE))?;
    let mut launches = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    match launches.find(|launch| launch["id"] == id) {
        Some(launch) => Ok(launch),
        None => wrong(format!("{TIMELINE} has no line for {id}")),
    }
}

/// Fails unless the launch reached these moments, one after the other.
pub fn in_order(launch: &Value, moments: &[&str]) -> Outcome {
    let mut last = 0;
    for name in moments {
        let Some(moment) = launch["moments"][name].as_u64() else {
            return wrong(format!("no {name}: {launch}"));
        };
        check(moment >= last, || format!("{name} is before the one before it: {launch}"))?;
        last = moment;
    }
    Ok(())
}
