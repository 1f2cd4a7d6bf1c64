//! Signals.

use super::Test;
use crate::context::Context;
use crate::failure::{Outcome, check, equal};
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("signal-init", "signals reach the first process, which chooses what they do", to_init),
    Test::new("signal-all", "--all reaches every process of the container", to_all),
    Test::new("signal-ignored", "a process that ignores SIGTERM lives on until SIGKILL", ignored),
    Test::new("signal-exec", "a signal to an exec reaches that process only", to_exec),
    Test::new("signal-after-exit", "a signal to what has ended is refused as not found", after_exit),
];

fn to_init(context: &Context) -> Outcome {
    let script = "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut running = context.container("a").script(script).start()?;
    running.close_stdin();
    running.stdout.wait_for("ready", SECONDS)?;
    let task = crate::task::Task::new(context, &context.id("a"));
    task.kill("SIGUSR1", &[])?;
    running.stdout.wait_for("got USR1", SECONDS)?;
    task.kill("SIGTERM", &[])?;
    running.stdout.wait_for("got TERM", SECONDS)?;
    running.finish(SECONDS)?.exited(5).map(|_| ())
}

fn to_all(context: &Context) -> Outcome {
    let script = "(trap 'echo child got it; exit' USR1; echo child ready; while :; do sleep 0.1; done) & \
                  trap 'echo parent got it' USR1; echo parent ready; while :; do sleep 0.1; done";
    let mut running = context.container("a").script(script).start()?;
    running.close_stdin();
    for line in ["child ready", "parent ready"] {
        running.stdout.wait_for(line, SECONDS)?;
    }
    let task = crate::task::Task::new(context, &context.id("a"));
    task.kill("SIGUSR1", &["--all"])?;
    for line in ["child got it", "parent got it"] {
        running.stdout.wait_for(line, SECONDS)?;
    }
    task.kill("SIGKILL", &["--all"])?;
    running.finish(SECONDS)?.exited(137).map(|_| ())
}

fn ignored(context: &Context) -> Outcome {
    let mut running =
        context.container("a").script("trap '' TERM; echo ready; while :; do sleep 1; done").start()?;
    running.close_stdin();
    running.stdout.wait_for("ready", SECONDS)?;
    let task = crate::task::Task::new(context, &context.id("a"));
    task.kill("SIGTERM", &[])?;
    // That it lives on shows in its answer to a new process, which runs after the signal has arrived.
    task.exec("1", &["sh", "-c", "kill -0 1 && echo alive"])?.wrote("alive\n")?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.kill("SIGKILL", &[])?;
    running.finish(SECONDS)?.exited(137).map(|_| ())
}

fn to_exec(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut exec = task.start_exec("one", &["sh", "-c", "echo ready; exec sleep 1000"])?;
    exec.close_stdin();
    exec.stdout.wait_for("ready", SECONDS)?;
    task.kill("SIGTERM", &["--exec-id", "one"])?;
    exec.finish(SECONDS)?.exited(143)?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.end()
}

fn after_exit(context: &Context) -> Outcome {
    let task = context.container("a").command(&["true"]).detach()?;
    task.wait_for("STOPPED")?;
    let refused = eventually(SECONDS, || task.kill_command("SIGTERM", &[])?.failed())?;
    let text = refused.stderr.to_lowercase();
    check(text.contains("not found") || text.contains("finished"), || format!("another reason: {text}"))?;
    equal("exit status", task.delete()?, 0)
}
