//! Where the shim's messages go.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains};
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("log-to-containerd", "the shim's messages are in containerd's log", to_containerd).only_nacre(),
    Test::new("log-to-pod", "a pod has a log of its own when that is asked for", to_pod).only_nacre().alone(),
];

/// What the shim says of every pod.
const MESSAGE: &str = "VM started";

fn to_containerd(context: &Context) -> Outcome {
    if !Path::new("/run/systemd/system").exists() {
        return context.cannot_run("containerd is not a service of systemd here");
    }
    context.container("a").command(&["true"]).run()?.exited(0)?;
    let id = context.id("a");
    eventually(SECONDS, || {
        let words = ["--unit", "containerd", "--output", "cat", "--no-pager"];
        let log = process::run(Command::new("journalctl").args(words))?.exited(0)?.stdout;
        let ours = |line: &str| line.contains(&id) && line.contains(MESSAGE);
        check(log.lines().any(ours), || format!("containerd's log has no {MESSAGE:?} of {id}"))
    })
}

fn to_pod(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[log]\npod_file = true\n")?;
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let path = Path::new("/run/nacre").join(&context.options.namespace).join(&task.id).join("shim.log");
    let text = fs::read_to_string(&path).map_err(Failure::io(path.display().to_string()))?;
    contains("the pod's log", &text, MESSAGE)?;
    for line in text.lines() {
        serde_json::from_str::<Value>(line).map_err(Failure::other(format!("no JSON: {line}")))?;
    }
    task.end()?;
    check(!path.exists(), || "the log outlives its pod".to_owned())
}
