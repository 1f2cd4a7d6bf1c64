//! How long a container takes from `ctr run` to its end, and its VM from its start to its agent.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{Sample, Subject};
use crate::context::Context;
use crate::failure::{Failure, wrong};

const TIMELINE: &str = "/var/log/nacre/launches.jsonl";

/// One run of `true`.
pub fn measure(context: &Context, subject: Subject, number: u32) -> Result<Vec<Sample>, Failure> {
    let context = context.with_runtime(subject.runtime);
    let name = format!("{}-{number}", subject.name);
    let finished = context.container(&name).command(&["true"]).run()?.exited(0)?;
    let mut samples = vec![sample("ctr_run_true", subject.name, finished.took)];
    if subject.name == "nacre" {
        samples.push(sample("exec_to_ready", subject.name, exec_to_ready(&context.id(&name))?));
    }
    Ok(samples)
}

/// A duration as a sample.
pub fn sample(metric: &'static str, subject: &'static str, took: Duration) -> Sample {
    Sample { metric, subject, unit: "ms", value: took.as_secs_f64() * 1000.0 }
}

/// From T1, the VMM's exec, to T10, the agent's ready message.
fn exec_to_ready(id: &str) -> Result<Duration, Failure> {
    let launch = launch(id)?;
    let moment = |name: &str| launch["moments"][name].as_u64();
    match (moment("T1"), moment("T10")) {
        (Some(exec), Some(ready)) => Ok(Duration::from_nanos(ready.saturating_sub(exec))),
        _ => wrong(format!("a launch without T1 or T10: {launch}")),
    }
}

/// What nacre wrote about the start of this container's VM.
pub fn launch(id: &str) -> Result<Value, Failure> {
    let text = fs::read_to_string(TIMELINE).map_err(Failure::io(TIMELINE))?;
    let mut launches = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    match launches.find(|launch| launch["id"] == id) {
        Some(launch) => Ok(launch),
        None => wrong(format!("{TIMELINE} has no line for {id}")),
    }
}
