//! One thread's events: epoll over everything that its workers wait for.

use std::io;
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::worker::Worker;

/// Events taken in one turn; more wait for the next.
const EVENTS_PER_TURN: usize = 64;
/// The `worker` of the stop event: none has this number.
const STOP: u64 = u64::MAX;

/// Runs workers on the thread that calls [`EventLoop::run`]. Sleeps while there is nothing to do.
#[derive(Debug)]
pub struct EventLoop {
    epoll: Epoll,
    stop: EventFd,
    workers: Vec<Worker>,
}

/// Registers what one worker wants to hear of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poller<'a> {
    epoll: &'a Epoll,
    worker: u32,
}

#[cfg(test)]
impl<'a> Poller<'a> {
    pub fn for_test(epoll: &'a Epoll) -> Self {
        Self { epoll, worker: 0 }
    }
}

impl Poller<'_> {
    /// Reports `events` of `source` under `token` from now on.
    pub fn add(&self, source: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Add, source, token, events)
    }

    /// Changes what is reported of a registered source.
    pub fn modify(&self, source: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Modify, source, token, events)
    }

    /// Reports nothing of `source` any more. An event that is already taken may still arrive.
    pub fn remove(&self, source: &impl AsRawFd) {
        // Fails only for what isn't registered, which is what is wanted.
        let _ = self.control(ControlOperation::Delete, source, 0, EventSet::empty());
    }

    fn control(
        &self,
        operation: ControlOperation,
        source: &impl AsRawFd,
        token: u32,
        events: EventSet,
    ) -> io::Result<()> {
        let data = u64::from(self.worker) << 32 | u64::from(token);
        self.epoll.ctl(operation, source.as_raw_fd(), EpollEvent::new(events, data))
    }
}

impl EventLoop {
    /// Prepares to run `workers`.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(workers: Vec<Worker>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), EpollEvent::new(EventSet::IN, STOP))?;
        for (worker, number) in workers.iter().zip(0..) {
            worker.register(Poller { epoll: &epoll, worker: number })?;
        }
        Ok(Self { epoll, stop, workers })
    }

    /// What ends [`EventLoop::run`] when 1 is written to it.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn stopper(&self) -> io::Result<EventFd> {
        self.stop.try_clone()
    }

    /// Serves the workers until it is stopped. Bells that rang before that are still heard: what a guest printed
    /// last is not lost.
    ///
    /// # Errors
    /// The kernel refused to wait for events, which means that this loop is broken.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn(-1)? {}
        self.turn(0)?;
        Ok(())
    }

    /// Waits for events and handles them. False when one of them was the stop.
    fn turn(&mut self, timeout: i32) -> io::Result<bool> {
        let mut events = [EpollEvent::default(); EVENTS_PER_TURN];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let mut goes_on = true;
        for event in events.iter().take(count) {
            if event.data() == STOP {
                goes_on = false;
            } else {
                self.dispatch(event);
            }
        }
        Ok(goes_on)
    }

    fn dispatch(&mut self, event: &EpollEvent) {
        let Ok(number) = u32::try_from(event.data() >> 32) else { return };
        let Ok(token) = u32::try_from(event.data() & u64::from(u32::MAX)) else { return };
        let poller = Poller { epoll: &self.epoll, worker: number };
        let worker = usize::try_from(number).ok().and_then(|index| self.workers.get_mut(index));
        if let Some(worker) = worker {
            worker.handle(token, event.event_set(), poller);
        }
    }
}
