//! Life on a node: processes of a pod are killed or hang, also while it is being made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use k8s_cri::v1::PodSandboxState;

use super::client::Cri;
use super::life::{kill_containerd, runs};
use super::pod::Pod;
use super::traces::Traces;
use crate::cases::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, chain, check, equal, wrong};
use crate::listing;
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("life/shim-killed", "a pod whose shim was killed is not ready and can be removed", shim_killed)
        .alone(),
    Test::new(
        "life/processes-killed",
        "a pod whose processes were killed is not ready, and goes",
        all_killed,
    )
    .alone(),
    Test::new("life/hung", "a pod whose processes hang can be stopped and removed", hung).alone().limit(600),
    Test::new("life/create-shim-killed", "of a pod whose shim is killed early nothing stays", shim_in_create)
        .alone()
        .limit(600),
    Test::new("life/create-processes-killed", "the same with a pod's first process", process_in_create)
        .alone()
        .limit(600),
    Test::new("life/create-abandoned", "of a pod whose kubelet goes away early nothing stays", abandoned)
        .alone()
        .limit(600),
    Test::new("life/create-containerd-killed", "the same with containerd", containerd_in_create)
        .alone()
        .limit(600),
];

/// Sends a signal, by its name without `SIG`.
pub fn kill(signal: &str, pids: &[u32]) -> Outcome {
    let pids = pids.iter().map(u32::to_string);
    process::run(Command::new("kill").arg(format!("-{signal}")).args(pids))?.exited(0).map(|_| ())
}

fn is_shim(pid: u32) -> bool {
    listing::command_line(pid).unwrap_or_default().contains("containerd-shim-")
}

/// The shim of a pod.
pub fn shim(pod: &str) -> Result<u32, Failure> {
    let of_pod = |pid: &u32| listing::command_line(*pid).unwrap_or_default().contains(pod);
    let shim = listing::pids().into_iter().find(|pid| is_shim(*pid) && of_pod(pid));
    shim.ok_or_else(|| Failure::Wrong(format!("no shim has {pod} in its command line")))
}

/// The processes in a pod's cgroup, without its shim, which is there or not.
fn processes(cgroup: &str) -> Vec<u32> {
    let mut found = Vec::new();
    collect(&Traces::cgroup_folder(cgroup), &mut found);
    found.retain(|pid| !is_shim(*pid));
    found
}

fn collect(folder: &Path, found: &mut Vec<u32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        collect(&entry.path(), found);
    }
}

fn processes_of(pod: &Pod<'_>) -> Result<Vec<u32>, Failure> {
    let found = processes(&pod.cgroup());
    if found.is_empty() { wrong("no process in the pod's cgroup") } else { Ok(found) }
}

fn shim_killed(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    kill("KILL", &[shim(&pod.id)?])?;
    eventually(SECONDS, || pod.is(PodSandboxState::SandboxNotready))?;
    container.wait()?;
    pod.end()?;
    check(disturbance::containerd().is_some(), || "containerd is gone".into())?;
    equal("pods", cri.pods()?.len(), 0)
}

fn all_killed(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    kill("KILL", &processes_of(&pod)?)?;
    eventually(SECONDS, || pod.is(PodSandboxState::SandboxNotready))?;
    check(container.wait()?.exit_code != 0, || "the container's exit status is zero".into())?;
    pod.end()?;
    equal("pods", cri.pods()?.len(), 0)
}

fn hung(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    pod.container("one").start()?;
    kill("STOP", &processes_of(&pod)?)?;
    pod.end()?;
    equal("pods", cri.pods()?.len(), 0)
}

/// How long after a victim appears it is killed: a pod is made of many steps.
const DELAYS: [u64; 3] = [0, 150, 1500];

/// Runs pods, and has `strike` kill something of each after every one of [`DELAYS`] while it is made. Afterwards what
/// there is of the pod can be removed, and another one runs.
fn while_made(context: &Context, strike: impl Fn(&Made, Duration) -> Outcome) -> Outcome {
    for delay in DELAYS {
        let cri = Cri::connect(context)?;
        let made = Made { cgroup: cri.traces.cgroup("a")?, shims: shims() };
        let struck = thread::scope(|scope| {
            let runs = scope.spawn(|| Cri::connect(context)?.pod("a").run().map(|_| ()));
            let struck = strike(&made, Duration::from_millis(delay));
            // That it runs is as good as that it doesn't: it may have been made already. But if there was nothing to kill,
            // this may be why.
            match (struck, runs.join()) {
                (Err(nothing), Ok(Err(refused))) => {
                    wrong(format!("{}; the pod: {}", chain(&nothing), chain(&refused)))
                }
                (struck, _) => struck,
            }
        });
        struck?;
        let pods = eventually(SECONDS, || cri.pods())?;
        for pod in pods {
            cri.traces.note(&pod.id)?;
            Pod { cri: &cri, id: pod.id, config: Default::default() }.end()?;
        }
        equal("pods", cri.pods()?.len(), 0)?;
    }
    runs(&Cri::connect(context)?, "b")
}

/// A pod that is being made.
struct Made {
    cgroup: String,
    /// Those of others.
    shims: BTreeSet<u32>,
}

impl Made {
    fn shims(&self) -> Result<Vec<u32>, Failure> {
        // Not the process that containerd starts, which makes the socket, starts the one that stays and answers: a
        // containerd 1.7 whose start was killed asks nobody to clean up.
        let stays = |pid: &&u32| {
            listing::command_line(**pid).is_some_and(|line| !line.split(' ').any(|word| word == "start"))
        };
        let new: Vec<u32> = shims().difference(&self.shims).filter(stays).copied().collect();
        if new.is_empty() { wrong("no new shim appears") } else { Ok(new) }
    }

    fn processes(&self) -> Result<Vec<u32>, Failure> {
        let new = processes(&self.cgroup);
        if new.is_empty() { wrong("no process appears in the pod's cgroup") } else { Ok(new) }
    }
}

fn shims() -> BTreeSet<u32> {
    listing::pids().into_iter().filter(|pid| is_shim(*pid)).collect()
}

fn shim_in_create(context: &Context) -> Outcome {
    while_made(context, |made, delay| {
        eventually(SECONDS, || made.shims())?;
        thread::sleep(delay);
        eventually(SECONDS, || kill("KILL", &made.shims()?))
    })
}

fn process_in_create(context: &Context) -> Outcome {
    while_made(context, |made, delay| {
        eventually(SECONDS, || made.processes())?;
        thread::sleep(delay);
        eventually(SECONDS, || kill("KILL", &made.processes()?))
    })
}

fn abandoned(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    for delay in DELAYS {
        cri.pod("a").abandoned(Duration::from_millis(delay))?;
        // As kubelet does when it is back: what it finds it removes, and it tries again until the name is free.
        eventually(SECONDS, || {
            for pod in cri.pods()? {
                cri.traces.note(&pod.id)?;
                Pod { cri: &cri, id: pod.id, config: Default::default() }.end()?;
            }
            cri.pod("a").run()?.end()
        })?;
    }
    let pod = cri.pod("b").run()?;
    for delay in [0, 20, 200] {
        pod.container("one").abandoned(Duration::from_millis(delay));
        eventually(SECONDS, || {
            pod.remove_containers()?;
            pod.container("one").script("true").run().map(|_| ())
        })?;
        pod.remove_containers()?;
    }
    pod.end()?;
    equal("pods", cri.pods()?.len(), 0)
}

fn containerd_in_create(context: &Context) -> Outcome {
    while_made(context, |made, delay| {
        eventually(SECONDS, || made.shims())?;
        thread::sleep(delay);
        kill_containerd()
    })
}
