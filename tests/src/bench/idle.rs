//! A container that sleeps: what its pod takes of memory and CPU.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{Sample, Subject, memory, processes};
use crate::context::Context;
use crate::failure::Failure;
use crate::timeline;

/// How long a pod may take to come to rest: a Linux that has just started asks for random numbers after 5, 10, 20 and 40
/// seconds, and its network's timers run out.
const SETTLING: Duration = Duration::from_secs(45);

/// One container, measured while it does nothing.
pub fn measure(
    context: &Context,
    subject: Subject,
    number: u32,
    seconds: u64,
) -> Result<Vec<Sample>, Failure> {
    let context = context.with_runtime(subject.runtime);
    let name = format!("idle-{}-{number}", subject.name);
    let task = context.container(&name).command(&["sleep", "100000"]).detach()?;
    let pids = processes::of(&task.id)?;
    thread::sleep(SETTLING);
    let before = Time::of(&pids);
    thread::sleep(Duration::from_secs(seconds));
    let after = Time::of(&pids);

    let (mut own, mut guest) = (0, 0);
    let size = if pids.len() > 1 { timeline::of(&task.id)?["memory_mib"].as_u64() } else { None };
    for pid in &pids {
        let memory = memory::of(*pid, size.map(|mib| mib * 1024))?;
        own += memory.own;
        guest += memory.guest;
    }
    task.end()?;
    let sample = |metric, unit, value| Sample { metric, subject: subject.name, unit, value };
    let of_ten_seconds = |before: Duration, after: Duration| {
        after.saturating_sub(before).as_secs_f64() * 1000.0 * 10.0
            / Duration::from_secs(seconds).as_secs_f64()
    };
    let mut samples = vec![
        sample("host_pss", "MiB", mib(own)),
        sample("idle_cpu", "ms in 10 s", of_ten_seconds(before.own, after.own)),
    ];
    if pids.len() > 1 {
        samples.push(sample("idle_cpu_guest", "ms in 10 s", of_ten_seconds(before.guest, after.guest)));
        samples.push(sample("guest_touched", "MiB", mib(guest)));
    }
    Ok(samples)
}

fn mib(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::INFINITY, f64::from) / 1024.0
}

/// What the threads of some processes have run so far.
#[derive(Default)]
struct Time {
    /// Those of the runtime itself.
    own: Duration,
    /// Those that run a guest: what its kernel does at rest, and what each of its wake-ups costs.
    guest: Duration,
}

impl Time {
    fn of(pids: &[u32]) -> Self {
        let threads =
            pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
        let mut time = Self::default();
        for thread in threads.flatten().map(|thread| thread.path()) {
            let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
            let statistics = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            let ran = statistics.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
            let part = if name.starts_with("vcpu") { &mut time.guest } else { &mut time.own };
            *part += Duration::from_nanos(ran);
        }
        time
    }
}
