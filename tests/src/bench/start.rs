//! How long a container takes from `ctr run` to its end, and its VM from its start to its agent.

use std::time::Duration;

use serde_json::Value;

use super::{Sample, Subject};
use crate::context::Context;
use crate::failure::{Failure, wrong};
use crate::timeline;

/// One run of `true`.
pub fn measure(context: &Context, subject: Subject, number: u32) -> Result<Vec<Sample>, Failure> {
    let context = context.with_runtime(subject.runtime);
    let name = format!("{}-{number}", subject.name);
    let finished = context.container(&name).command(&["true"]).run()?.exited(0)?;
    let mut samples = vec![sample("ctr_run_true", subject.name, finished.took)];
    if subject.name == "nacre" {
        let launch = timeline::of(&context.id(&name))?;
        // From the VMM's exec to the agent's ready message, and what of it any VMM pays: from the kernel's first
        // instruction to init's.
        samples.push(sample("exec_to_ready", subject.name, between(&launch, "T1", "T10")?));
        samples.push(sample("kernel_to_init", subject.name, between(&launch, "T5", "T8")?));
    }
    Ok(samples)
}

/// A duration as a sample.
pub fn sample(metric: &'static str, subject: &'static str, took: Duration) -> Sample {
    Sample { metric, subject, unit: "ms", value: took.as_secs_f64() * 1000.0 }
}

/// The time from one moment of a launch to a later one.
fn between(launch: &Value, from: &str, to: &str) -> Result<Duration, Failure> {
    let moment = |name: &str| launch["moments"][name].as_u64();
    match (moment(from), moment(to)) {
        (Some(from), Some(to)) => Ok(Duration::from_nanos(to.saturating_sub(from))),
        _ => wrong(format!("a launch without {from} or {to}: {launch}")),
    }
}
