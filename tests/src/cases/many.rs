//! Many containers at once.

use std::time::Duration;

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, contains, equal};
use crate::wait::SECONDS;

const COUNT: u32 = 20;

pub const TESTS: &[Test] = &[
    Test::new("twenty-at-once", "twenty containers started at once all run", twenty).alone().limit(900),
    Test::new("same-name-refused", "a name in use is refused, and its container goes on", same_name),
];

fn twenty(context: &Context) -> Outcome {
    let mut all = Vec::new();
    for number in 0..COUNT {
        // Each waits for its input to end, so that all of them run at the same time.
        let script = format!("echo ready; cat >/dev/null; echo {number} ends; exit {number}");
        all.push(context.container(&format!("c{number}")).script(&script).start()?);
    }
    for running in &all {
        let ready = running.stdout.wait_for("ready", Duration::from_secs(600));
        ready.map_err(|failure| {
            Failure::Wrong(format!("{failure}; standard error: {}", running.stderr.text()))
        })?;
    }
    let table = context.run_ctr(&["task", "ls"])?.exited(0)?.stdout;
    let ours = table.lines().filter(|line| line.starts_with(&context.prefix()) && line.contains("RUNNING"));
    equal("running containers", ours.count(), COUNT as usize)?;
    for (number, mut running) in (0_i32..).zip(all) {
        running.close_stdin();
        let finished = running.finish(Duration::from_secs(200))?.exited(number)?;
        equal("output", finished.stdout, format!("ready\n{number} ends\n"))?;
    }
    Ok(())
}

fn same_name(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let refused = context.container("a").command(&["true"]).run()?.failed()?;
    contains("the error", &refused.stderr, "already exists")?;
    let refused = context.run_ctr(&["task", "start", &task.id])?.failed()?;
    contains("the error", &refused.stderr, "already exists")?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.exec("1", &["echo", "still here"])?.wrote("still here\n").map(|_| ()).and_then(|()| {
        task.kill("SIGKILL", &[])?;
        crate::wait::eventually(SECONDS, || equal("status", task.status()?.as_deref(), Some("STOPPED")))
    })?;
    equal("exit status", task.delete()?, 137)
}
