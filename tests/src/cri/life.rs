//! Life on a node: restarts, kills, crowds.

use std::process::Command;

use k8s_cri::v1::{ContainerState, PodSandboxState};

use super::client::Cri;
use super::traces::Traces;
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
    Test::new("life/hung", "a pod whose processes hang can be stopped and removed", hung).alone().limit(600),
    Test::new("life/crowd", "many pods at once are run, and stopped at once", crowd).alone().limit(1800),
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

/// The pod's processes in its cgroup, without its shim, which is there or not.
fn processes(pod: &super::pod::Pod<'_>) -> Vec<String> {
    let parent = pod.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let entries = std::fs::read_dir(Traces::cgroup_folder(&parent)).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path().join("cgroup.procs"));
    let pids = files.filter_map(|file| std::fs::read_to_string(file).ok());
    let pids: Vec<String> =
        pids.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let shim = |pid: &String| {
        let line = pid.parse().ok().and_then(listing::command_line).unwrap_or_default();
        line.contains("containerd-shim-")
    };
    pids.into_iter().filter(|pid| !shim(pid)).collect()
}

fn hung(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    pod.container("one").start()?;
    let hanging = processes(&pod);
    check(!hanging.is_empty(), || "no process in the pod's cgroup".into())?;
    process::run(Command::new("kill").arg("-STOP").args(hanging))?.exited(0)?;
    pod.end()?;
    equal("pods", cri.pods()?.len(), 0)
}

/// More than a node has processors, and less than its memory holds.
const CROWD: u32 = 12;

fn crowd(context: &Context) -> Outcome {
    let of_each = |work: &(dyn Fn(&Cri, u32) -> Outcome + Sync)| -> Outcome {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..CROWD).map(|number| scope.spawn(move || work(&Cri::connect(context)?, number))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Wrong("a thread of the test panicked".into())),
            })
        })
    };
    of_each(&|cri, number| {
        let pod = cri.pod(&format!("p{number}")).run()?;
        pod.container("one").script("echo well; exec sleep 3600").start()?.wait_for("well")
    })?;
    let cri = Cri::connect(context)?;
    let pods = cri.pods()?;
    equal("pods", pods.len(), usize::try_from(CROWD).unwrap_or(0))?;
    of_each(&|cri, number| {
        let found = cri
            .pods()?
            .into_iter()
            .find(|pod| pod.metadata.as_ref().is_some_and(|metadata| metadata.name == format!("p{number}")));
        let Some(pod) = found else { return Err(Failure::Wrong(format!("pod {number} is gone"))) };
        super::pod::Pod { cri, id: pod.id, config: Default::default() }.end()
    })?;
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
