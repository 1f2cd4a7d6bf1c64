//! A container that sleeps: what its pod takes of memory and CPU.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{Sample, Subject, memory, processes, start};
use crate::context::Context;
use crate::failure::Failure;

/// How long a pod may take to come to rest.
const SETTLING: Duration = Duration::from_secs(10);

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
    let before = processor_time(&pids);
    thread::sleep(Duration::from_secs(seconds));
    let used = processor_time(&pids).saturating_sub(before);

    let (mut own, mut guest) = (0, 0);
    let size = if pids.len() > 1 { start::launch(&task.id)?["memory_mib"].as_u64() } else { None };
    for pid in &pids {
        let memory = memory::of(*pid, size.map(|mib| mib * 1024))?;
        own += memory.own;
        guest += memory.guest;
    }
    task.end()?;
    let sample = |metric, unit, value| Sample { metric, subject: subject.name, unit, value };
    let milliseconds_of_ten_seconds =
        used.as_secs_f64() * 1000.0 * 10.0 / Duration::from_secs(seconds).as_secs_f64();
    let mut samples = vec![
        sample("host_pss", "MiB", mib(own)),
        sample("idle_cpu", "ms in 10 s", milliseconds_of_ten_seconds),
    ];
    if pids.len() > 1 {
        samples.push(sample("guest_touched", "MiB", mib(guest)));
    }
    Ok(samples)
}

fn mib(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::INFINITY, f64::from) / 1024.0
}

/// What all threads of these processes have run so far.
fn processor_time(pids: &[u32]) -> Duration {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}
