//! Collects the children of PID 1: the containers' processes and every orphan of the guest.

use std::collections::HashMap;
use std::sync::Mutex;

use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::lock::lock;

/// Hands exit statuses to those who expect them.
///
/// A process must be expected before it becomes a child of this one, which the spawner's helpers see to.
#[derive(Debug, Default)]
pub struct Reaper {
    expected: Mutex<HashMap<i32, oneshot::Sender<i32>>>,
}

impl Reaper {
    /// The status of this process when it ends: its exit code, or 128 and the number of the signal.
    pub fn expect(&self, pid: Pid) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.expected).insert(pid.as_raw(), sender);
        receiver
    }

    /// No longer expects this process: it never became a child.
    pub fn forget(&self, pid: Pid) {
        lock(&self.expected).remove(&pid.as_raw());
    }

    /// The signal that wakes [`Reaper::run`]; to be taken before the first child can end.
    pub fn signals() -> std::io::Result<Signal> {
        signal(SignalKind::child())
    }

    /// Collects children until the process ends.
    pub async fn run(&self, mut signals: Signal) {
        loop {
            self.collect();
            if signals.recv().await.is_none() {
                return;
            }
        }
    }

    fn collect(&self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let code =
                        status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                    if let Some(code) = code {
                        self.ended(pid.as_raw_nonzero().get(), code);
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn ended(&self, pid: i32, status: i32) {
        if let Some(sender) = lock(&self.expected).remove(&pid) {
            let _ = sender.send(status);
        }
    }
}
