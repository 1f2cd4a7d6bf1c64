//! A container's life: pausing, looking into it, deleting it.

use serde_json::Value;

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::task::Task;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("pause-and-resume", "a paused container stands still and goes on", pause),
    Test::new("processes", "ctr task ps shows the container's real processes", processes),
    Test::new("statistics", "ctr task metrics shows memory, CPU and processes", statistics),
    Test::new("delete-running", "a running task is not deleted, a killed one is", delete_running),
    Test::new("restart", "a container starts again after its task was deleted", restart),
    Test::new(
        "checkpoint",
        "a checkpoint is refused as unimplemented, and the container goes on",
        checkpoint,
    )
    .only_nacre(),
    Test::new("created-only", "a task that was never started can be deleted", created_only),
];

fn pause(context: &Context) -> Outcome {
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done";
    let mut running = context.container("a").script(script).start()?;
    running.close_stdin();
    running.stdout.wait_for("\n3\n", SECONDS)?;
    let task = Task::new(context, &context.id("a"));
    context.run_ctr(&["task", "pause", &task.id])?.exited(0)?;
    equal("status", task.status()?.as_deref(), Some("PAUSED"))?;
    // What was already under way arrives first; then nothing more comes.
    let quiet = || -> Result<usize, Failure> {
        let before = running.stdout.text().len();
        std::thread::sleep(std::time::Duration::from_secs(2));
        let now = running.stdout.text().len();
        if now == before { Ok(now) } else { wrong("it still writes") }
    };
    let length = eventually(SECONDS, quiet)?;
    context.run_ctr(&["task", "resume", &task.id])?.exited(0)?;
    running.stdout.wait_until("more output", SECONDS, |text| text.len() > length)?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.kill("SIGKILL", &[])?;
    running.finish(SECONDS)?.exited(137).map(|_| ())
}

fn checkpoint(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let refused = context.run_ctr(&["task", "checkpoint", &task.id])?.failed()?;
    contains("the error", &refused.stderr, "a checkpoint")?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.exec("1", &["echo", "still here"])?.wrote("still here\n")?;
    task.end()
}

fn processes(context: &Context) -> Outcome {
    let task = context.container("a").script("sleep 1000 & sleep 1000 & wait").detach()?;
    let count = || -> Result<usize, Failure> {
        let table = context.run_ctr(&["task", "ps", &task.id])?.exited(0)?.stdout;
        Ok(table.lines().filter(|line| line.trim().starts_with(|first: char| first.is_ascii_digit())).count())
    };
    eventually(SECONDS, || equal("processes", count()?, 3))?;
    task.exec("1", &["sh", "-c", "kill $(ls -d /proc/[0-9]* | sed 's,/proc/,,' | sort -n | sed -n 2p)"])?
        .exited(0)?;
    eventually(SECONDS, || equal("processes after one ended", count()?, 2))?;
    task.end()
}

fn statistics(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--memory-limit", "134217728"]);
    let task = container.script("nacre-probe eat 20").detach()?;
    eventually(SECONDS, || {
        let shown = context.run_ctr(&["task", "metrics", "--format", "json", &task.id])?.exited(0)?.stdout;
        let metrics: Value = serde_json::from_str(&shown).map_err(Failure::other("no JSON"))?;
        let number = |path: &str| metrics.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        // cgroup v2's names, or those of v1.
        let memory = number("/memory/usage").max(number("/memory/usage/usage"));
        let processor = number("/cpu/usage_usec").max(number("/cpu/usage/total"));
        check((20 << 20..128 << 20).contains(&memory), || format!("memory {memory}: {shown}"))?;
        check(processor > 0, || format!("no CPU time: {shown}"))?;
        equal("processes", number("/pids/current"), 1)
    })?;
    task.end()
}

fn delete_running(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let refused = context.run_ctr(&["task", "delete", &task.id])?.failed()?;
    contains("the error", &refused.stderr, "must be stopped")?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.end()?;
    context.gone(&task.id)
}

fn restart(context: &Context) -> Outcome {
    let task = context.container("a").script("exit 3").detach()?;
    task.wait_for("STOPPED")?;
    equal("exit status", task.delete()?, 3)?;
    context.run_ctr(&["task", "start", &task.id])?.exited(3)?;
    Ok(())
}

fn created_only(context: &Context) -> Outcome {
    // A task whose start fails was created; its deletion is ctr's own next step.
    let refused = context.container("a").command(&["/etc"]).run()?.failed()?;
    contains("the error", &refused.stderr, "/etc")?;
    context.gone(&context.id("a"))
}
