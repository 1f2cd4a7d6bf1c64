//! Parts that die while a container runs: containerd's view stays true, and nothing is left.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::listing;
use crate::process;
use crate::task::Task;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("vmm-killed", "the VMM is killed: the task has stopped and is deleted at once", vmm_killed)
        .only_nacre()
        .alone(),
    Test::new("vmm-killed-attached", "the VMM is killed: ctr run ends with an error", vmm_killed_attached)
        .only_nacre()
        .alone(),
    Test::new(
        "vmm-terminated",
        "the VMM is told to end while its guest starts: ctr run says so",
        vmm_terminated,
    )
    .only_nacre()
    .alone(),
    Test::new("shim-killed", "the shim is killed: its container is gone, with all it had", shim_killed)
        .alone(),
    Test::new("containerd-restarted", "containerd is restarted: the container runs on", restarted).alone(),
    Test::new("guest-panics-later", "the guest's kernel panics: the task has stopped", guest_panics)
        .only_nacre()
        .alone(),
];

fn vmm_killed(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    kill_process(vmm(&task)?)?;
    stopped_and_deleted(context, &task)
}

/// The task shows as stopped, its deletion is quick and says that it was killed.
fn stopped_and_deleted(context: &Context, task: &Task) -> Outcome {
    task.wait_for("STOPPED")?;
    let code = task.delete()?;
    check(code != 0, || "a killed container's exit status is 0".to_owned())?;
    context.run_ctr(&["container", "delete", &task.id])?.exited(0)?;
    context.gone(&task.id)
}

fn vmm_killed_attached(context: &Context) -> Outcome {
    let mut running = context.container("a").script("echo ready; sleep 1000").start()?;
    running.close_stdin();
    running.stdout.wait_for("ready", SECONDS)?;
    kill_process(vmm(&Task::new(context, &context.id("a")))?)?;
    running.finish(SECONDS)?.failed()?;
    context.gone(&context.id("a"))
}

fn vmm_terminated(context: &Context) -> Outcome {
    let text = "[guest]\nkernel_parameters = \"agent.announce=0\"\n[timeouts]\nstart_seconds = 120\n";
    let _configuration = disturbance::configuration(text)?;
    let running = context.container("a").command(&["true"]).start()?;
    let task = Task::new(context, &context.id("a"));
    let pid = eventually(SECONDS, || vmm(&task).and_then(|pid| runs_guest(pid).map(|()| pid)))?;
    signal(pid, Signal::SIGTERM)?;
    let finished = running.finish(SECONDS)?.failed()?;
    contains("the error", &finished.stderr, "the VMM was told to stop (SIGTERM)")?;
    context.gone(&task.id)
}

/// Fails unless this VMM has a CPU.
fn runs_guest(vmm: u32) -> Outcome {
    let threads = fs::read_dir(format!("/proc/{vmm}/task")).into_iter().flatten().flatten();
    let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    check(names.any(|name| name.trim() == "vcpu0"), || "no CPU runs".to_owned())
}

fn shim_killed(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    kill_process(shim(&task)?)?;
    // containerd forgets the task, or shows it as stopped until it is deleted.
    eventually(SECONDS, || match task.status()?.as_deref() {
        None | Some("STOPPED") => Ok(()),
        Some(status) => wrong(format!("the task is {status}")),
    })?;
    let deleted = context.run_ctr(&["task", "delete", &task.id])?;
    check(deleted.took < Duration::from_secs(20), || {
        format!("its deletion took {} s", deleted.took.as_secs())
    })?;
    if deleted.code != 0 && deleted.code != 137 {
        contains("the error", &deleted.stderr, "not found")?;
    }
    context.run_ctr(&["container", "delete", &task.id])?.exited(0)?;
    context.gone(&task.id)
}

fn restarted(context: &Context) -> Outcome {
    if !Path::new("/run/systemd/system").exists() {
        return context.cannot_run("containerd is not a service of systemd here");
    }
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    process::run(Command::new("systemctl").args(["restart", "containerd"]))?.exited(0)?;
    eventually(SECONDS, || context.run_ctr(&["version"])?.exited(0).map(|_| ()))?;
    equal("status", task.status()?.as_deref(), Some("RUNNING"))?;
    task.exec("1", &["echo", "still here"])?.wrote("still here\n")?;
    task.kill("SIGKILL", &[])?;
    task.wait_for("STOPPED")?;
    equal("exit status", task.delete()?, 137)?;
    context.run_ctr(&["container", "delete", &task.id])?.exited(0)?;
    context.gone(&task.id)
}

fn guest_panics(context: &Context) -> Outcome {
    let writable = |spec: &mut Value| spec["linux"]["readonlyPaths"] = json!([]);
    let container = context.container("a").flags(&["--memory-limit", "100663296"]).specification(writable);
    let task = container.command(&["sleep", "1000"]).detach()?;
    let script = "echo 2 > /proc/sys/vm/panic_on_oom; exec nacre-probe eat 300";
    let mut exec = task.start_exec("panic", &["sh", "-c", script])?;
    exec.close_stdin();
    exec.finish(SECONDS)?.failed()?;
    stopped_and_deleted(context, &task)
}

fn kill_process(pid: u32) -> Outcome {
    signal(pid, Signal::SIGKILL)
}

fn signal(pid: u32, signal: Signal) -> Outcome {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    kill(pid, signal).map_err(Failure::other(format!("can't send {signal} to process {pid}")))
}

/// The process of the task's shim.
fn shim(task: &Task) -> Result<u32, Failure> {
    let ours = |pid: &u32| {
        listing::command_line(*pid)
            .is_some_and(|line| line.contains("containerd-shim-") && line.contains(&task.id))
    };
    let found = listing::pids().into_iter().find(ours);
    found.ok_or_else(|| Failure::Wrong(format!("no shim has {} in its command line", task.id)))
}

/// The process of the task's VMM: a child of its shim.
fn vmm(task: &Task) -> Result<u32, Failure> {
    let shim = shim(task)?;
    let vmm = |pid: &u32| {
        listing::parent(*pid) == shim
            && listing::command_line(*pid).is_some_and(|line| line.contains("nacre-vmm"))
    };
    let found = listing::pids().into_iter().find(vmm);
    found.ok_or_else(|| Failure::Wrong(format!("the shim {shim} has no child nacre-vmm")))
}
