//! The VMM's main thread once the machine runs: between the shim, the machine and the signals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nacre_control::{Channel, ChannelError, Event, Moment, Request, StopReason};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use vmm_sys_util::eventfd::EventFd;

use crate::chain_text;
use crate::files::Files;
use crate::machine::Machine;
use crate::reports::Report;

/// A console that still has not served its queue after this time is not worth waiting for.
const CONSOLE_PATIENCE: Duration = Duration::from_millis(200);

/// What the main thread listens to.
#[derive(Debug)]
pub struct Supervisor<'a> {
    /// The shim.
    pub channel: &'a Channel,
    /// SIGTERM and SIGINT.
    pub signals: &'a SignalFd,
    /// What the machine's threads report.
    pub reports: Receiver<Report>,
    /// Readable when there are reports.
    pub bell: Arc<EventFd>,
}

impl Supervisor<'_> {
    /// Serves the shim until the machine's life is over. `moments` are those before the first instruction.
    pub fn run(&self, machine: &Machine, mut moments: Vec<Moment>) -> StopReason {
        loop {
            let mut ready = [self.channel.as_fd(), self.signals.as_fd(), borrow(&self.bell)]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return StopReason::Failed(format!("poll failed: {errno}")),
            }
            let [shim, signal, report] = ready.map(|descriptor| descriptor.any().unwrap_or(false));
            let ended = report.then(|| self.take_reports(machine, &mut moments)).flatten();
            let ended = ended.or_else(|| signal.then(|| self.take_signal()).flatten());
            if let Some(reason) = ended.or_else(|| shim.then(|| self.serve_request(machine)).flatten()) {
                return reason;
            }
        }
    }

    /// Tells the shim why it is over, with the last words of the guest.
    pub fn say_goodbye(&self, machine: &Machine, reason: StopReason) {
        machine.stop_console();
        let deadline = Instant::now() + CONSOLE_PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(Report::DevicesStopped) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let stopped = Event::Stopped { reason, console_tail: machine.console_tail() };
        // Nobody listens when the shim is gone.
        let _ = self.channel.send(&stopped, &[]);
    }

    fn take_reports(&self, machine: &Machine, moments: &mut Vec<Moment>) -> Option<StopReason> {
        let _ = self.bell.read();
        loop {
            match self.reports.try_recv() {
                Ok(Report::Ended(reason)) => return Some(reason),
                Ok(report) => {
                    if let Err(gone) = self.pass_on(machine, report, moments) {
                        return Some(gone);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    fn pass_on(
        &self,
        machine: &Machine,
        report: Report,
        moments: &mut Vec<Moment>,
    ) -> Result<(), StopReason> {
        match report {
            Report::Running(moment) => {
                let mut moments = std::mem::take(moments);
                moments.push(moment);
                self.send(&Event::Started { moments }, &[])
            }
            Report::Reached(moment) => self.send(&Event::Reached(moment), &[]),
            Report::Stage0Did { step, ns } => self.send(&Event::Stage0Did { step, ns }, &[]),
            Report::Connected { port, stream } => match machine.serve_reports(port, stream) {
                Some(stream) => self.send(&Event::GuestConnected { port }, &[stream.as_fd()]),
                None => Ok(()),
            },
            Report::Ended(_) | Report::DevicesStopped => Ok(()),
        }
    }

    fn take_signal(&self) -> Option<StopReason> {
        match self.signals.read_signal() {
            Ok(Some(signal)) => {
                let by = i32::try_from(signal.ssi_signo)
                    .ok()
                    .and_then(|number| nix::sys::signal::Signal::try_from(number).ok())
                    .map_or_else(|| "a signal".to_owned(), |signal| signal.as_str().to_owned());
                Some(StopReason::Requested { by })
            }
            Ok(None) => None,
            Err(errno) => Some(StopReason::Failed(format!("reading a signal failed: {errno}"))),
        }
    }

    fn serve_request(&self, machine: &Machine) -> Option<StopReason> {
        let (request, files) = match self.channel.receive::<Request>() {
            Ok(received) => received,
            Err(ChannelError::Closed) => {
                return Some(StopReason::Requested { by: "the shim's end".to_owned() });
            }
            Err(error) => return Some(StopReason::Failed(chain_text(&error))),
        };
        match request {
            Request::Stop => Some(StopReason::Requested { by: "the shim".to_owned() }),
            Request::Start(_) => Some(StopReason::Failed("a second start was asked for".to_owned())),
            Request::TellConsole => {
                self.send(&Event::ConsoleTail { text: machine.console_tail() }, &[]).err()
            }
            Request::GrowDisk { disk, extents } => {
                let extents = grow(machine, disk, &extents, files);
                self.send(&Event::DiskGrown { disk, extents }, &[]).err()
            }
            Request::ReleaseExtents { disk, starts } => {
                release(machine, disk, &starts).err().map(StopReason::Failed)
            }
        }
    }

    fn send(&self, event: &Event, files: &[BorrowedFd<'_>]) -> Result<(), StopReason> {
        self.channel.send(event, files).map_err(|error| match error {
            ChannelError::Closed => StopReason::Requested { by: "the shim's end".to_owned() },
            other => StopReason::Failed(chain_text(&other)),
        })
    }
}

fn grow(
    machine: &Machine,
    disk: u8,
    extents: &[nacre_control::Extent],
    files: Vec<OwnedFd>,
) -> Result<Vec<(u64, u64)>, String> {
    let handle = machine.disks.get(usize::from(disk)).ok_or_else(|| format!("there is no disk {disk}"))?;
    let files = Files::new(files).take_extents(extents).map_err(|error| chain_text(&error))?;
    handle.grow(files).map_err(|error| chain_text(&error))
}

fn release(machine: &Machine, disk: u8, starts: &[u64]) -> Result<(), String> {
    let handle = machine.disks.get(usize::from(disk)).ok_or_else(|| format!("there is no disk {disk}"))?;
    handle.release(starts).map_err(|error| chain_text(&error))
}

fn borrow(bell: &EventFd) -> BorrowedFd<'_> {
    crate::unsafe_kernel::borrow(bell)
}
