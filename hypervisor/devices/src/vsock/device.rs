//! The device: queues, streams and waiting peers together.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vmm_sys_util::epoll::EventSet;

use super::connection::{Connection, Reaction};
use super::greeter::{Greeter, Greeting};
use super::packet::Header;
use super::table::Table;
use super::{Config, Event};
use crate::event_loop::Poller;
use crate::fault::Fault;
use crate::queue::ActiveQueue;
use crate::worker::{Activation, Backend, FIRST_OWN_TOKEN, Progress};

const LISTENER: u32 = FIRST_OWN_TOKEN;
const TIMER: u32 = FIRST_OWN_TOKEN + 1;
const FIRST_STREAM: u32 = FIRST_OWN_TOKEN + 2;
/// Turns of both directions before other devices have theirs.
const ROUNDS: usize = 4;

/// The socket device.
pub(super) struct Sockets {
    pub(super) guest_cid: u64,
    pub(super) host_ports: Vec<u32>,
    pub(super) events: Box<dyn FnMut(Event) + Send>,
    pub(super) heard_of_guest: bool,
    pub(super) queues: Option<Queues>,
    pub(super) table: Table,
    pub(super) greeter: Greeter,
    /// Refusals that the guest has no buffers for. While there are many, its packets wait: it can't make us keep
    /// more of them.
    pub(super) refusals: VecDeque<Header>,
    last_token: u32,
}

/// The queues of a running device. The device has no events to report.
pub(super) struct Queues {
    pub(super) receive: ActiveQueue,
    pub(super) transmit: ActiveQueue,
}

/// How far one direction came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is nothing more; the guest's bell or an event will tell.
    Drained,
    /// It can't go on before the other direction does, or before the guest brings buffers.
    Blocked,
    /// There may be more.
    More,
}

impl Sockets {
    pub fn new(config: Config) -> io::Result<Self> {
        let Config { guest_cid, listener, host_ports, events } = config;
        Ok(Self {
            guest_cid: u64::from(guest_cid.0),
            host_ports,
            events,
            heard_of_guest: false,
            queues: None,
            table: Table::default(),
            greeter: Greeter::new(listener)?,
            refusals: VecDeque::new(),
            last_token: FIRST_STREAM,
        })
    }

    /// A token that nothing live has.
    pub(super) fn new_token(&mut self) -> u32 {
        loop {
            self.last_token = self.last_token.checked_add(1).unwrap_or(FIRST_STREAM);
            if !self.table.contains(self.last_token) && !self.greeter.contains(self.last_token) {
                return self.last_token;
            }
        }
    }

    fn accept(&mut self, poller: Poller<'_>) -> io::Result<()> {
        loop {
            let token = self.new_token();
            if !self.greeter.accept(token, poller)? {
                return Ok(());
            }
            self.greet(token, poller);
        }
    }

    fn greet(&mut self, token: u32, poller: Poller<'_>) {
        match self.greeter.read(token) {
            Greeting::Incomplete => {}
            Greeting::Invalid => self.greeter.done(token, poller),
            Greeting::Port(socket, port) => self.ask_guest(token, socket, port, poller),
        }
    }

    fn ask_guest(&mut self, token: u32, socket: UnixStream, port: u32, poller: Poller<'_>) {
        if self.table.is_full() {
            poller.remove(&socket);
            self.greeter.done(token, poller);
            return;
        }
        let connection = Connection::from_host(self.table.window());
        let ports = self.table.free_ports(port);
        self.table.insert(token, ports, connection, socket);
    }

    fn expire(&mut self, poller: Poller<'_>) -> io::Result<()> {
        for token in self.greeter.expired(Instant::now()) {
            self.end_waiting(token, poller)?;
        }
        Ok(())
    }

    fn end_waiting(&mut self, token: u32, poller: Poller<'_>) -> io::Result<()> {
        self.greeter.done(token, poller);
        self.table.detach(token, poller)
    }

    /// The socket of a stream has something for us, room for us, or is at its end.
    fn stream_event(&mut self, token: u32, events: EventSet, poller: Poller<'_>) -> io::Result<()> {
        let Some(stream) = self.table.get(token) else { return Ok(()) };
        stream.event(events);
        stream.flush();
        self.table.settle(token, poller)?;
        self.table.list(token);
        Ok(())
    }

    /// Does for the host's side what a packet of the guest means.
    pub(super) fn react(&mut self, token: u32, reaction: Reaction, poller: Poller<'_>) -> io::Result<()> {
        match reaction {
            Reaction::None | Reaction::Deliver | Reaction::Discard | Reaction::Shutdown => {}
            Reaction::Accepted => {
                self.greeter.done(token, poller);
                if let Some(stream) = self.table.get(token)
                    && !stream.greet()
                    && let Some(connection) = &mut stream.connection
                {
                    connection.host_stopped_reading();
                }
            }
            Reaction::Finished | Reaction::Gone | Reaction::Violation => {
                return self.end_waiting(token, poller);
            }
        }
        self.table.settle(token, poller)?;
        self.table.list(token);
        Ok(())
    }
}

impl Backend for Sockets {
    fn activate(&mut self, activation: Activation, poller: Poller<'_>) -> Result<(), Fault> {
        let mut queues = activation.queues.into_iter();
        self.queues =
            queues.next().zip(queues.next()).map(|(receive, transmit)| Queues { receive, transmit });
        Ok(self.greeter.start(poller, LISTENER, TIMER)?)
    }

    fn event(&mut self, token: u32, events: EventSet, poller: Poller<'_>) -> Result<(), Fault> {
        match token {
            LISTENER => self.greeter.listener_ready(),
            TIMER => self.expire(poller)?,
            token if self.greeter.contains(token) => self.greet(token, poller),
            token => self.stream_event(token, events, poller)?,
        }
        Ok(())
    }

    fn run(&mut self, poller: Poller<'_>) -> Result<Progress, Fault> {
        let mut progress = Progress::More;
        for _ in 0..ROUNDS {
            self.accept(poller)?;
            let sent = self.transmit(poller)?;
            let received = self.receive(poller)?;
            let waits_for_guest = sent == Outcome::Blocked && received == Outcome::Blocked;
            if waits_for_guest || (sent == Outcome::Drained && received != Outcome::More) {
                progress = Progress::Idle;
                break;
            }
        }
        if let Some(queues) = &mut self.queues {
            queues.transmit.signal()?;
            queues.receive.signal()?;
        }
        Ok(progress)
    }

    fn deactivate(&mut self, poller: Poller<'_>) {
        self.queues = None;
        self.greeter.stop(poller);
        self.table.clear(poller);
        self.refusals.clear();
    }
}

#[cfg(test)]
mod tests;
