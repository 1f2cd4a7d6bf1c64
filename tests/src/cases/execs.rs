//! More processes in a running container.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::Test;
use crate::containerd;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::process;
use crate::wait::SECONDS;

pub const TESTS: &[Test] = &[
    Test::new("exec", "an exec has its own exit status, output, user, folder and environment", exec),
    Test::new("exec-environment", "an exec has the environment of its own specification", environment),
    Test::new(
        "exec-missing-command",
        "a command that does not exist fails at once, with the reason",
        missing,
    ),
    Test::new("exec-many", "ten execs at once, each with its own result", many),
    Test::new("exec-same-name", "a name of an exec is refused while it is in use", same_name),
    Test::new("exec-outlived", "the end of the container ends its execs", outlived),
];

fn exec(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--env", "SHELLFISH=oyster"]).command(&["sleep", "1000"]);
    let task = container.detach()?;
    task.exec("status", &["sh", "-c", "echo out; echo err >&2; exit 42"])?.exited(42)?;
    task.exec("environment", &["sh", "-c", "echo $SHELLFISH"])?.wrote("oyster\n")?;
    let mut user = task.exec_command(
        "user",
        &["--user", "1000:1000", "--cwd", "/tmp"],
        &["sh", "-c", "id -u; id -g; pwd"],
    );
    process::run(&mut user)?.wrote("1000\n1000\n/tmp\n")?;
    task.exec("tree", &["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"])?.wrote("sleep 1000 ")?;
    task.end()
}

fn environment(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--env", "SHELLFISH=oyster"]).command(&["sleep", "1000"]);
    let task = container.detach()?;
    let path = std::env::temp_dir().join(context.id("stdout"));
    mkfifo(&path, Mode::S_IRWXU).map_err(Failure::other("can't make a FIFO"))?;
    // Reading and writing, so that neither end waits for the other.
    let output =
        File::options().read(true).write(true).open(&path).map_err(Failure::io("can't open a FIFO"))?;
    let process = json!({
        "args": ["sh", "-c", "echo $SHELLFISH $WEED"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "env": ["PATH=/bin:/usr/bin", "WEED=kelp"],
    });
    containerd::exec(&context.options, &task.id, "one", &path.display().to_string(), &process)?;
    fs::remove_file(&path).map_err(Failure::io("can't remove a FIFO"))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(Failure::io("can't read a FIFO"))?;
    equal("output", line.as_str(), "kelp\n")?;
    task.end()
}

fn missing(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let finished = task.exec("one", &["no-such-command"])?.failed()?;
    contains("the error", &finished.stderr, "no-such-command")?;
    check(finished.took < Duration::from_secs(30), || format!("it took {} s", finished.took.as_secs()))?;
    // Nothing is broken by it.
    task.exec("two", &["echo", "fine"])?.wrote("fine\n")?;
    task.end()
}

fn many(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut all = Vec::new();
    for number in 0..10 {
        let script = format!("echo {number}; exit {number}");
        let mut exec = task.start_exec(&format!("e{number}"), &["sh", "-c", &script])?;
        exec.close_stdin();
        all.push(exec);
    }
    for (number, exec) in (0..).zip(all) {
        let finished = exec.finish(Duration::from_secs(100))?.exited(number)?;
        equal("output", finished.stdout, format!("{number}\n"))?;
    }
    task.end()
}

fn same_name(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut first = task.start_exec("one", &["sh", "-c", "echo ready; read line; echo $line"])?;
    first.stdout.wait_for("ready", SECONDS)?;
    let refused = task.exec("one", &["true"])?.failed()?;
    contains("the error", &refused.stderr, "already exists")?;
    first.write(b"undisturbed\n")?;
    first.finish(SECONDS)?.wrote("ready\nundisturbed\n")?;
    // It may be used again when it has been deleted.
    task.exec("one", &["true"])?.exited(0)?;
    task.end()
}

fn outlived(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut exec = task.start_exec("one", &["sh", "-c", "echo ready; exec sleep 1000"])?;
    exec.close_stdin();
    exec.stdout.wait_for("ready", SECONDS)?;
    task.kill("SIGKILL", &[])?;
    exec.finish(SECONDS)?.exited(137)?;
    task.wait_for("STOPPED")?;
    equal("exit status", task.delete()?, 137)
}
