//! Life on a node: restarts, upgrades, full disks, crowds.

use std::fs;
use std::iter;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use k8s_cri::v1::{ContainerState, PodSandboxState};

use super::client::Cri;
use super::kills;
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
    Test::new("life/upgraded", "pods outlive their programs' replacement and end by the new ones", upgraded)
        .alone()
        .limit(600),
    Test::new("life/run-full", "a pod can be stopped when /run is full, and none is half made", run_full)
        .alone()
        .limit(600),
    Test::new(
        "life/disk-full",
        "a pod can be stopped when the disk is full, and none is half made",
        disk_full,
    )
    .alone()
    .limit(600),
    Test::new("life/crowd", "30 pods at once are run, and stopped at once", crowd).alone().limit(1800),
    Test::new("life/many-cycles", "pods come and go and leave nothing (--cycles)", cycles)
        .alone()
        .limit(300)
        .limit_for_each_cycle(60),
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

/// Runs a pod with a container to its end.
pub(super) fn runs(cri: &Cri, name: &str) -> Outcome {
    let pod = cri.pod(name).run()?;
    equal("output", pod.container("one").script("echo well").run()?.as_str(), "well\n")?;
    pod.end()
}

/// Kills containerd, and starts it again.
pub(super) fn kill_containerd() -> Outcome {
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "containerd"])?;
    eventually(SECONDS, || systemctl(&["start", "containerd"]))
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
    kill_containerd()?;
    usable(&pod, &container)?;
    pod.end()
}

/// Programs and guests' files of both runtimes, as far as they are there, and where a payload has them.
const PROGRAMS: [(&str, &str); 6] = [
    ("/usr/local/bin/containerd-shim-nacre-v2", "bin/containerd-shim-nacre-v2"),
    ("/usr/local/bin/nacre-vmm", "bin/nacre-vmm"),
    ("/usr/share/nacre/vmlinux", "share/vmlinux"),
    ("/usr/share/nacre/initrd.img", "share/initrd.img"),
    ("/usr/bin/containerd-shim-runc-v2", ""),
    ("/usr/sbin/runc", ""),
];

/// Puts another file where each program is, that of `payload` if there is one, else of the same content: what an
/// upgrade does to running programs.
fn upgrade(payload: Option<&Path>) -> Outcome {
    for (path, place) in PROGRAMS.map(|(path, place)| (Path::new(path), place)) {
        if !path.exists() {
            continue;
        }
        let other = payload.map(|payload| payload.join(place)).filter(|other| other.is_file());
        let from = other.as_deref().unwrap_or(path);
        let new = path.with_extension("new");
        fs::copy(from, &new).map_err(Failure::io(format!("can't copy {}", from.display())))?;
        fs::rename(&new, path).map_err(Failure::io(format!("can't replace {}", path.display())))?;
    }
    Ok(())
}

fn upgraded(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let (lives, dies) = (cri.pod("a").run()?, cri.pod("b").run()?);
    let container = lives.container("one").start()?;
    dies.container("one").start()?;
    upgrade(context.options.upgrade_to.as_deref())?;
    usable(&lives, &container)?;
    runs(&cri, "c")?;
    kills::kill("KILL", &[kills::shim(&dies.id)?])?;
    eventually(SECONDS, || dies.is(PodSandboxState::SandboxNotready))?;
    // As kubelet does: containerd may not have heard yet that the container has ended.
    eventually(SECONDS, || dies.end())?;
    lives.end()
}

fn run_full(context: &Context) -> Outcome {
    full(context, disturbance::RUN)
}

fn disk_full(context: &Context) -> Outcome {
    full(context, disturbance::DISK)
}

fn full(context: &Context, folder: &str) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    {
        let _full = disturbance::full(folder)?;
        // It may need no room. If it needs some, nothing of it stays.
        if let Ok(another) = cri.pod("b").run() {
            another.end()?;
        }
        pod.stop()?;
        container.wait()?;
    }
    pod.remove()?;
    equal("pods", cri.pods()?.len(), 0)?;
    runs(&cri, "c")
}

/// Pods that a node gets at once when another one fails.
const CROWD: u32 = 30;

/// Does this work as often at once, each with its own connection and number.
fn at_once(context: &Context, times: u32, work: &(dyn Fn(&Cri, u32) -> Outcome + Sync)) -> Outcome {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..times).map(|number| scope.spawn(move || work(&Cri::connect(context)?, number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Wrong("a thread of the test panicked".into())),
        })
    })
}

fn crowd(context: &Context) -> Outcome {
    let of_each = |work: &(dyn Fn(&Cri, u32) -> Outcome + Sync)| at_once(context, CROWD, work);
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

/// What containerd's memory may grow by, in KiB: its garbage is collected when it likes.
const GROWTH: u64 = 64 << 10;

/// How many pods come and go at once.
const LANES: u32 = 3;

fn cycles(context: &Context) -> Outcome {
    let containerd = disturbance::containerd().unwrap_or(0);
    let open = || fs::read_dir(format!("/proc/{containerd}/fd")).map(Iterator::count).unwrap_or(0);
    let memory = || listing::status(containerd, "VmRSS").unwrap_or(0);
    let many = |numbers: Range<u32>| {
        let next = AtomicU32::new(numbers.start);
        at_once(context, LANES, &|cri, _| {
            // One that fails is the last one of all.
            let cycle =
                |number| runs(cri, &format!("p{number}")).inspect_err(|_| next.store(numbers.end, Relaxed));
            iter::repeat_with(|| next.fetch_add(1, Relaxed))
                .take_while(|number| *number < numbers.end)
                .try_for_each(cycle)
        })
    };
    many(0..LANES)?;
    let before = (open(), memory());
    many(LANES..LANES + context.options.cycles)?;
    eventually(SECONDS, || {
        check(open() <= before.0 + 2, || format!("containerd had {} files open, now {}", before.0, open()))
    })?;
    let now = memory();
    check(now <= before.1 + GROWTH, || format!("containerd had {} KiB of memory, now {now}", before.1))
}
