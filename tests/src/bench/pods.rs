//! Measurements of pods through CRI, for `cargo xtask bench pods`: one line of JSON for each sample.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{SUBJECTS, Sample, Subject, memory, print_unless, processes};
use crate::context::Context;
use crate::cri::{Container, Cri, Pod};
use crate::failure::{Failure, chain, wrong};
use crate::options::Measuring;
use crate::wait::{SECONDS, eventually};

/// Pods that start at once.
const CROWD: u32 = 10;
/// Execs for each pod.
const EXECS: u32 = 5;
/// Bytes for a measurement of throughput.
const BYTES: u32 = 64 << 20;
/// How long pods may take to come to rest.
const SETTLING: Duration = Duration::from_secs(10);
/// When a pod that starts is given up.
const LIMIT: Duration = Duration::from_secs(240);

/// The name under which its pods are found and removed.
pub const NAME: &str = "bench/pods";

/// Measures everything and prints the samples as they come; the runtimes take turns.
///
/// # Errors
/// A pod does not run.
pub fn run(measuring: &Measuring) -> Result<(), Failure> {
    let context = Context::new(&measuring.options, NAME);
    for number in 0..=measuring.runs {
        for subject in SUBJECTS {
            let context = context.with_runtime(subject.runtime);
            // The first fills caches.
            print_unless(number == 0, one(&context, subject, &format!("{}-{number}", subject.name))?);
        }
    }
    for number in 0..measuring.idle_runs {
        for subject in SUBJECTS {
            let context = context.with_runtime(subject.runtime);
            print_unless(false, crowd(&context, subject, number)?);
        }
    }
    Ok(())
}

fn sample(subject: Subject, metric: &'static str, unit: &'static str, value: f64) -> Sample {
    Sample { metric, subject: subject.name, unit, value }
}

fn milliseconds(subject: Subject, metric: &'static str, took: Duration) -> Sample {
    sample(subject, metric, "ms", took.as_secs_f64() * 1000.0)
}

/// One pod, from its start to its deletion.
fn one(context: &Context, subject: Subject, name: &str) -> Result<Vec<Sample>, Failure> {
    let cri = Cri::connect(context)?;
    let began = Instant::now();
    let (pod, container) = to_output(&cri, name)?;
    let mut samples = vec![milliseconds(subject, "pod_to_output", began.elapsed())];
    for _ in 0..EXECS {
        let began = Instant::now();
        container.exec(&["true"])?;
        samples.push(milliseconds(subject, "exec_round_trip", began.elapsed()));
    }
    samples.push(sample(subject, "stdout", "MiB/s", stdout(&container)?));
    samples.push(sample(subject, "network", "MiB/s", network(&pod)?));
    let began = Instant::now();
    pod.end()?;
    samples.push(milliseconds(subject, "pod_deletion", began.elapsed()));
    Ok(samples)
}

/// Ten pods that start at once, and do nothing then.
fn crowd(context: &Context, subject: Subject, number: u32) -> Result<Vec<Sample>, Failure> {
    let began = Instant::now();
    let starts = (0..CROWD).map(|member| {
        let context = context.clone();
        thread::spawn(move || -> Result<(String, Duration), Failure> {
            let cri = Cri::connect(&context)?;
            let (pod, _) = to_output(&cri, &format!("{}-{number}-{member}", subject.name))?;
            Ok((pod.id, began.elapsed()))
        })
    });
    let starts: Vec<_> = starts.collect();
    let mut pods = Vec::new();
    let mut samples = Vec::new();
    for start in starts {
        match start.join() {
            Ok(Ok((id, took))) => {
                pods.push(id);
                samples.push(milliseconds(subject, "ten_pods_to_output", took));
            }
            // One that fails must not hide what the others took.
            Ok(Err(failure)) => eprintln!("{}: one of ten pods: {}", subject.name, chain(&failure)),
            Err(_) => return wrong("a thread of the measurement ended early"),
        }
    }
    thread::sleep(SETTLING);
    let mut kib = 0;
    for pod in &pods {
        for pid in processes::below_shim(pod)? {
            kib += memory::of(pid, None)?.own;
        }
    }
    if pods.len() == usize::try_from(CROWD).unwrap_or(usize::MAX) {
        let mib = u32::try_from(kib / 1024).map_or(f64::INFINITY, f64::from);
        samples.push(sample(subject, "ten_idle_pods_pss", "MiB", mib));
    }
    let cri = Cri::connect(context)?;
    for id in pods {
        Pod { cri: &cri, id, config: Default::default() }.end()?;
    }
    Ok(samples)
}

/// Runs a pod with one container that says a word, until the word is in the log.
fn to_output<'a>(cri: &'a Cri, name: &str) -> Result<(Pod<'a>, Container<'a>), Failure> {
    let pod = cri.pod(name).run()?;
    let container = pod.container("one").script("echo up; exec sleep 3600").create()?;
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).map_err(|why| io(why, "no inotify"))?;
    let folder = container.log.parent().unwrap_or(&container.log);
    watch
        .add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)
        .map_err(|why| io(why, "no watch of the log"))?;
    container.start()?;
    let end = Instant::now() + LIMIT;
    while !container.output().is_ok_and(|text| text.contains("up")) {
        if Instant::now() > end {
            return wrong(format!("{name} says nothing"));
        }
        let mut events = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut events, PollTimeout::from(1000_u16)).map_err(|why| io(why, "can't wait for the log"))?;
        let _ = watch.read_events();
    }
    Ok((pod, container))
}

fn io(why: nix::errno::Errno, what: &str) -> Failure {
    Failure::io(what)(why.into())
}

fn rate(took: Duration) -> f64 {
    f64::from(BYTES) / f64::from(1 << 20) / took.as_secs_f64()
}

/// MiB a second of an exec's output.
fn stdout(container: &Container<'_>) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut stream = container.exec_stream(&["nacre-probe", "stream", &BYTES.to_string()], false)?;
    stream.finish(LIMIT)?;
    let received = stream.received().len();
    if u32::try_from(received).ok() != Some(BYTES) {
        return wrong(format!("{received} bytes of output came, not {BYTES}"));
    }
    Ok(rate(began.elapsed()))
}

/// MiB a second from a server in the pod to the node.
fn network(pod: &Pod<'_>) -> Result<f64, Failure> {
    let address = format!("{}:8080", pod.address()?);
    pod.container("server").script(&format!("nacre-probe stream {BYTES} | nc -l -p 8080")).start()?;
    let mut socket =
        eventually(SECONDS, || TcpStream::connect(&address).map_err(Failure::io("can't reach the pod")))?;
    let mut buffer = vec![0; 1 << 18];
    let began = Instant::now();
    let mut left = u64::from(BYTES);
    while left > 0 {
        match socket.read(&mut buffer).map_err(Failure::io("the connection broke"))? {
            0 => return wrong(format!("{left} bytes did not come from the pod")),
            count => left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX)),
        }
    }
    Ok(rate(began.elapsed()))
}
