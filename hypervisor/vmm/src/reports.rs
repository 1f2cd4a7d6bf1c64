//! What the threads of a machine tell the one that speaks to the shim.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nacre_control::{Moment, StopReason};
use nix::time::{ClockId, clock_gettime};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Something the shim should know.
#[derive(Debug)]
pub enum Report {
    /// The first CPU is about to run the guest's first instruction.
    Running(Moment),
    /// The guest passed a moment of its launch.
    Reached(Moment),
    /// stage0 did a part of its work.
    Stage0Did {
        /// The part's number.
        step: u8,
        /// `CLOCK_MONOTONIC` in nanoseconds.
        ns: u64,
    },
    /// The guest connected to a port of the host.
    Connected {
        /// Which port.
        port: u32,
        /// The host's end.
        stream: UnixStream,
    },
    /// The machine's life is over.
    Ended(StopReason),
    /// The thread that serves the console has ended, so that its tail is complete.
    DevicesStopped,
}

/// The threads' end.
#[derive(Debug, Clone)]
pub struct Reporter {
    reports: Sender<Report>,
    bell: Arc<EventFd>,
}

impl Reporter {
    /// Makes both ends; the descriptor is readable when there are reports.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<(Self, Receiver<Report>, Arc<EventFd>)> {
        let (reports, receiver) = channel();
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok((Self { reports, bell: Arc::clone(&bell) }, receiver, bell))
    }

    /// Hands `report` over and wakes the other end.
    pub fn send(&self, report: Report) {
        // The other end goes away only with the process, and a bell that is full has been heard.
        let _ = self.reports.send(report);
        let _ = self.bell.write(1);
    }
}

/// The moment T`t`, now.
pub fn moment(t: u8) -> Moment {
    let ns = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .ok()
        .and_then(|now| {
            let seconds = u64::try_from(now.tv_sec()).ok()?;
            let nanoseconds = u64::try_from(now.tv_nsec()).ok()?;
            seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
        })
        .unwrap_or_default();
    Moment { t, ns }
}
