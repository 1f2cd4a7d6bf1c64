//! The half of a device that does the I/O.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use slog::{Logger, warn};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::event_loop::Poller;
use crate::fault::{Fault, GuestFault};
use crate::queue::ActiveQueue;
use crate::transport::Shared;

/// The token of the mailbox; those of the queues follow it.
const MAILBOX: u32 = 0;
const FIRST_QUEUE: u32 = 1;
/// The first token that a [`Backend`] may use for sources of its own.
pub(crate) const FIRST_OWN_TOKEN: u32 = 16;
/// A guest can cause faults without end: one log line in this time is enough.
const FAULT_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What the register half asks of the worker.
pub(crate) enum Command {
    /// The driver started the device.
    Activate(Activation),
    /// The driver could not start the device: for the log, at the worker's rate.
    Report(GuestFault),
    /// The driver reset the device, and waits for the answer: no guest memory is touched after it.
    Reset(SyncSender<()>),
}

/// What a device works with from DRIVER_OK to its reset.
pub(crate) struct Activation {
    pub queues: Vec<ActiveQueue>,
    /// The features that driver and device agreed on.
    pub features: u64,
}

/// Whether a device can go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything is done, or waits for an event.
    Idle,
    /// There is more to do, after the other devices of the thread had their turn.
    More,
}

/// A kind of device.
pub(crate) trait Backend: Send {
    /// The driver started the device. [`Backend::run`] is called next.
    fn activate(&mut self, activation: Activation, poller: Poller<'_>) -> Result<(), Fault>;
    /// Takes note of an event of a source that the backend registered. [`Backend::run`] is called next.
    fn event(&mut self, token: u32, events: EventSet, poller: Poller<'_>) -> Result<(), Fault> {
        let _ = (token, events, poller);
        Ok(())
    }
    /// Does what can be done without waiting. Also called when the driver rang the bell of a queue.
    fn run(&mut self, poller: Poller<'_>) -> Result<Progress, Fault>;
    /// The driver reset the device, or it failed: lets go of the queues.
    fn deactivate(&mut self, poller: Poller<'_>);
}

/// The half of a device that does the I/O; [`crate::EventLoop`] runs it.
pub struct Worker {
    commands: Receiver<Command>,
    wake: EventFd,
    notifiers: Vec<EventFd>,
    shared: Arc<Shared>,
    backend: Box<dyn Backend>,
    active: bool,
    log: Logger,
    last_logged: Option<Instant>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Worker").field("active", &self.active).finish_non_exhaustive()
    }
}

/// What [`Worker::new`] puts together.
pub(crate) struct WorkerParts {
    pub commands: Receiver<Command>,
    pub wake: EventFd,
    pub notifiers: Vec<EventFd>,
    pub shared: Arc<Shared>,
    pub backend: Box<dyn Backend>,
    pub log: Logger,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> Self {
        let WorkerParts { commands, wake, notifiers, shared, backend, log } = parts;
        Self { commands, wake, notifiers, shared, backend, active: false, log, last_logged: None }
    }

    pub(crate) fn register(&self, poller: Poller<'_>) -> io::Result<()> {
        poller.add(&self.wake, MAILBOX, EventSet::IN)?;
        for (notifier, token) in self.notifiers.iter().zip(FIRST_QUEUE..) {
            poller.add(notifier, token, EventSet::IN)?;
        }
        Ok(())
    }

    pub(crate) fn handle(&mut self, token: u32, events: EventSet, poller: Poller<'_>) {
        let mut own = None;
        if token == MAILBOX {
            // An event descriptor that is read late or twice only says that there is nothing new.
            let _ = self.wake.read();
            self.obey(poller);
        } else if token < FIRST_OWN_TOKEN {
            let queue = usize::try_from(token - FIRST_QUEUE).ok();
            if let Some(notifier) = queue.and_then(|queue| self.notifiers.get(queue)) {
                let _ = notifier.read();
            }
        } else {
            own = Some(token);
        }
        if self.active {
            self.advance(own, events, poller);
        }
    }

    fn obey(&mut self, poller: Poller<'_>) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                // Bells that rang before this are not lost: a device looks at all its queues when it starts.
                Command::Activate(activation) => match self.backend.activate(activation, poller) {
                    Ok(()) => self.active = true,
                    Err(fault) => self.fail(&fault, poller),
                },
                Command::Report(fault) => self.report(&Fault::Guest(fault)),
                Command::Reset(done) => {
                    if self.active {
                        self.backend.deactivate(poller);
                        self.active = false;
                    }
                    // The driver's side is gone only when the whole machine is.
                    let _ = done.send(());
                }
            }
        }
    }

    fn advance(&mut self, own: Option<u32>, events: EventSet, poller: Poller<'_>) {
        let noted = own.map_or(Ok(()), |token| self.backend.event(token, events, poller));
        match noted.and_then(|()| self.backend.run(poller)) {
            Ok(Progress::Idle) => {}
            Ok(Progress::More) => {
                // Fails only when it is already rung as often as a counter can hold.
                let _ = self.wake.write(1);
            }
            Err(fault) => self.fail(&fault, poller),
        }
    }

    fn fail(&mut self, fault: &Fault, poller: Poller<'_>) {
        self.backend.deactivate(poller);
        self.active = false;
        self.shared.needs_reset();
        self.report(fault);
    }

    fn report(&mut self, fault: &Fault) {
        let now = Instant::now();
        if self.last_logged.is_none_or(|last| now.duration_since(last) >= FAULT_LOG_INTERVAL) {
            self.last_logged = Some(now);
            let source = std::error::Error::source(fault).map(ToString::to_string).unwrap_or_default();
            warn!(self.log, "device needs reset"; "fault" => %fault, "cause" => source);
        }
    }
}
