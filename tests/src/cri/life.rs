//! Life on a node: restarts, kills, crowds.

use std::process::Command;

use k8s_cri::v1::{ContainerState, PodSandboxState};

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, equal};
use crate::listing;
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("life/containerd-restarted", "pods live on when containerd starts again", restarted)
        .alone()
        .limit(600),
    Test::new("life/containerd-killed", "pods live on when containerd is killed", killed).alone().limit(600),
    Test::new("life/shim-killed", "a pod whose shim was killed is not ready and can be removed", shim_killed)
        .alone(),
    Test::new("life/many-cycles", "pods come and go and leave nothing", cycles).alone().limit(900),
];

/// Fails unless this pod and container, which ran before, are usable.
fn usable(pod: &super::pod::Pod<'_>, container: &super::container::Container<'_>) -> Outcome {
    eventually(SECONDS, || pod.is(PodSandboxState::SandboxReady))?;
    container.is(ContainerState::ContainerRunning)?;
    equal("exec", container.shell("echo well")?.as_str(), "well\n")?;
    equal("a new container", pod.container("new").script("echo new").run()?.as_str(), "new\n")
}

fn systemctl(words: &[&str]) -> Outcome {
    process::run(Command::new("systemctl").args(words))?.exited(0).map(|_| ())
}

fn restarted(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").script("sleep 5; echo later; exec sleep 3600").start()?;
    systemctl(&["restart", "containerd"])?;
    usable(&pod, &container)?;
    container.wait_for("later")?;
    pod.end()
}

fn killed(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "containerd"])?;
    eventually(SECONDS, || systemctl(&["start", "containerd"]))?;
    usable(&pod, &container)?;
    pod.end()
}

/// The shim of a pod.
fn shim(pod: &str) -> Result<u32, Failure> {
    let line = |pid: u32| listing::command_line(pid).unwrap_or_default();
    let mut pids = listing::pids().into_iter();
    let shim = pids.find(|pid| line(*pid).contains("containerd-shim-") && line(*pid).contains(pod));
    shim.ok_or_else(|| Failure::Wrong(format!("no shim has {pod} in its command line")))
}

fn shim_killed(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let pid = shim(&pod.id)?;
    process::run(Command::new("kill").args(["-KILL", &pid.to_string()]))?.exited(0)?;
    eventually(SECONDS, || pod.is(PodSandboxState::SandboxNotready))?;
    container.wait()?;
    pod.end()?;
    check(disturbance::containerd().is_some(), || "containerd is gone".into())?;
    equal("pods", cri.pods()?.len(), 0)
}

fn cycles(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let containerd = disturbance::containerd().unwrap_or(0);
    let open = || std::fs::read_dir(format!("/proc/{containerd}/fd")).map(Iterator::count).unwrap_or(0);
    let cycle = |number: u32| {
        let pod = cri.pod(&format!("p{number}")).run()?;
        equal("output", pod.container("one").script("echo well").run()?.as_str(), "well\n")?;
        pod.end()
    };
    (0..2).try_for_each(cycle)?;
    let before = open();
    (2..10).try_for_each(cycle)?;
    eventually(SECONDS, || check(open() <= before + 2, || format!("{before} files open, now {}", open())))
}
