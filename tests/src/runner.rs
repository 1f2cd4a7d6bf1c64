//! Running tests: each as a process with a deadline, its output kept for the case that it fails.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::cases::{self, Test};
use crate::cri::Traces;
use crate::failure::{Failure, chain};
use crate::leftovers;
use crate::listing::Listing;
use crate::options::{Options, RUNC};

/// The exit status of a test's process that could not run; its last line says why.
pub const CANNOT_RUN: u8 = 77;

/// How a test ended.
#[derive(Debug)]
pub enum Verdict {
    /// All as it must be.
    Passed,
    /// Something wrong, with what the test printed.
    Failed(String),
    /// It can't run here, and why.
    Skipped(String),
}

/// Counts of verdicts.
#[derive(Debug, Default)]
pub struct Summary {
    /// Tests that passed.
    pub passed: usize,
    /// The names of tests that failed.
    pub failed: Vec<String>,
    /// The names of tests that could not run, and why.
    pub skipped: Vec<String>,
}

impl Summary {
    /// Notes a verdict and prints its line.
    pub fn note(&mut self, name: &str, verdict: Verdict, took: Duration) {
        let seconds = took.as_secs_f32();
        match verdict {
            Verdict::Passed => {
                println!("PASS {name} ({seconds:.1} s)");
                self.passed += 1;
            }
            Verdict::Skipped(why) => {
                println!("SKIP {name}: {why}");
                self.skipped.push(format!("{name}: {why}"));
            }
            Verdict::Failed(output) => {
                let mut lines = output.trim_end().lines();
                println!("FAIL {name}: {}", lines.next().unwrap_or("no reason given"));
                for line in lines {
                    println!("    {line}");
                }
                println!("    after {seconds:.1} s");
                self.failed.push(name.to_owned());
            }
        }
    }
}

/// Runs tests that may run beside each other, `jobs` at a time.
pub fn beside(tests: &[&'static Test], jobs: usize, options: &Options, summary: &mut Summary) {
    let waiting: Mutex<VecDeque<&'static Test>> = Mutex::new(tests.iter().copied().collect());
    let (done, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (waiting, done) = (&waiting, done.clone());
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(test) = next else { return };
                    let began = Instant::now();
                    let verdict = one(test, options);
                    let _ = done.send((test.name, verdict, began.elapsed()));
                }
            });
        }
        drop(done);
        for (name, verdict, took) in results {
            summary.note(name, verdict, took);
        }
    });
}

/// Runs tests one after the other and compares the node with what it was before each.
pub fn alone(tests: &[&'static Test], options: &Options, summary: &mut Summary) {
    for test in tests {
        let began = Instant::now();
        let before = Listing::now(options);
        let mut verdict = one(test, options);
        if let Verdict::Passed = verdict
            && let Err(failure) = leftovers::compare(options, &before)
        {
            verdict = left_behind(options, &failure);
        }
        summary.note(test.name, verdict, began.elapsed());
    }
}

/// What it means that a test left something behind. runc is tested to see what containerd asks of a runtime; what its
/// shim leaves on a node when it is killed is not for us to mend, and shows in the table.
pub fn left_behind(options: &Options, failure: &Failure) -> Verdict {
    let what = chain(failure);
    if options.runtime == RUNC {
        let lines: Vec<&str> = what.lines().map(str::trim).collect();
        Verdict::Skipped(format!("runc does not clean up: {}", lines.join(" / ")))
    } else {
        Verdict::Failed(what)
    }
}

/// Runs a test, and takes a refusal for its skip where a VM can't have what it tests.
fn one(test: &'static Test, options: &Options) -> Verdict {
    match (once(test, options), test.not_in_a_vm) {
        (Verdict::Failed(output), Some((why, word))) if options.runtime != RUNC && refused(&output, word) => {
            let said = output.lines().next().unwrap_or_default();
            Verdict::Skipped(format!("can't hold for a virtual machine: {why}; refused with {said:?}"))
        }
        (Verdict::Passed, Some((why, _))) if options.runtime != RUNC => {
            Verdict::Failed(format!("it holds, though it can't for a virtual machine: {why}"))
        }
        (verdict, _) => verdict,
    }
}

/// Whether the output of a test is a refusal of containerd's that has this word.
fn refused(output: &str, word: &str) -> bool {
    output.lines().next().is_some_and(|line| line.contains("is refused") && line.contains(word))
}

/// Runs a test's process and cleans up behind it.
fn once(test: &'static Test, options: &Options) -> Verdict {
    if cases::is_cri(test.name) {
        Traces::of(test.name).remove_folder();
    }
    let verdict = judge(test, options).unwrap_or_else(|failure| Verdict::Failed(chain(&failure)));
    // Most tests leave nothing, and asking containerd takes much longer than looking.
    if !matches!(verdict, Verdict::Passed) || leftovers::any(options, test.name) {
        leftovers::remove(options, test.name);
    }
    match (verdict, leftovers::search(options, test.name)) {
        (Verdict::Passed, Err(failure)) => left_behind(options, &failure),
        (Verdict::Failed(output), Err(failure)) => Verdict::Failed(format!("{output}\n{}", chain(&failure))),
        (verdict, _) => verdict,
    }
}

fn judge(test: &'static Test, options: &Options) -> Result<Verdict, Failure> {
    let (mut read, write) = std::io::pipe().map_err(Failure::io("can't make a pipe"))?;
    let errors = write.try_clone().map_err(Failure::io("can't share a pipe"))?;
    // Not its path: that may be another program by now.
    let mut command = Command::new("/proc/self/exe");
    command.args(["one", test.name]).args(options.words());
    command.stdin(Stdio::null()).stdout(write).stderr(errors).process_group(0);
    let mut child = command.spawn().map_err(Failure::io("can't start a test"))?;
    // Its ends of the pipe are the only ones that may stay open.
    drop(command);

    let (ended, wait) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        let _ = read.read_to_end(&mut output);
        let _ = ended.send(());
        output
    });
    let limit = test.limit + test.limit_for_each_cycle * options.cycles;
    let in_time = wait.recv_timeout(limit).is_ok();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // Also when it ended by itself: programs that it started end with it.
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait().map_err(Failure::io("can't wait for a test"))?;
    let output = reader.join().unwrap_or_default();
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(match status.code() {
        _ if !in_time => Verdict::Failed(format!("{output}\nnot finished within {} s", limit.as_secs())),
        Some(0) => Verdict::Passed,
        Some(code) if code == i32::from(CANNOT_RUN) => {
            Verdict::Skipped(output.trim_end().lines().last().unwrap_or_default().to_owned())
        }
        _ => Verdict::Failed(output),
    })
}
