//! Peers of the host that have not got their stream yet: accepted, and until the guest has answered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::handshake::{Line, MAX_LINE, Parsed};
use super::stream::Stream;
use crate::event_loop::Poller;

/// The most peers between their connection and the guest's answer; others wait in the listener's queue.
const MAX_WAITING: usize = 64;
/// From a peer's connection to the guest's answer. A guest on a busy machine may well take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts peers and reads where they want to go.
pub(super) struct Greeter {
    listener: UnixListener,
    /// There may be more to accept.
    acceptable: bool,
    peers: HashMap<u32, (UnixStream, Line)>,
    /// When waiting ends, by token. The patience is the same for all, so they are in order.
    deadlines: VecDeque<(Instant, u32)>,
    timer: TimerFd,
}

/// What a peer has said.
pub(super) enum Greeting {
    /// Not all.
    Incomplete,
    /// Nothing that makes sense, or it is gone.
    Invalid,
    /// It wants to go to this port of the guest. Still waiting, for the guest's answer.
    Port(UnixStream, u32),
}

impl Greeter {
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        Ok(Self {
            listener,
            acceptable: true,
            peers: HashMap::new(),
            deadlines: VecDeque::new(),
            timer: TimerFd::new()?,
        })
    }

    pub fn start(&mut self, poller: Poller<'_>, listener: u32, timer: u32) -> io::Result<()> {
        self.acceptable = true;
        poller.add(&self.listener, listener, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        poller.add(&self.timer, timer, EventSet::IN)
    }

    pub fn stop(&mut self, poller: Poller<'_>) {
        poller.remove(&self.listener);
        poller.remove(&self.timer);
        for (_, (socket, _)) in self.peers.drain() {
            poller.remove(&socket);
        }
        self.deadlines.clear();
        self.set_timer();
    }

    pub fn listener_ready(&mut self) {
        self.acceptable = true;
    }

    pub fn contains(&self, token: u32) -> bool {
        self.peers.contains_key(&token)
    }

    /// Accepts one peer if there is one and room for it.
    pub fn accept(&mut self, token: u32, poller: Poller<'_>) -> io::Result<bool> {
        if !self.acceptable || self.deadlines.len() >= MAX_WAITING {
            return Ok(false);
        }
        // Whatever the reason, such as too few descriptors: the next peer is the next occasion.
        let Ok((socket, _)) = self.listener.accept() else {
            self.acceptable = false;
            return Ok(false);
        };
        socket.set_nonblocking(true)?;
        poller.add(&socket, token, Stream::interest(false))?;
        self.peers.insert(token, (socket, Line::default()));
        self.deadlines.push_back((Instant::now() + PATIENCE, token));
        if self.deadlines.len() == 1 {
            self.set_timer();
        }
        Ok(true)
    }

    /// Reads what a peer said. Not a byte more than its line is taken from the socket.
    pub fn read(&mut self, token: u32) -> Greeting {
        let Some((socket, line)) = self.peers.get_mut(&token) else { return Greeting::Incomplete };
        loop {
            let mut bytes = [0; MAX_LINE];
            let flags = MsgFlags::MSG_DONTWAIT;
            let count = match recv(socket.as_raw_fd(), &mut bytes, flags | MsgFlags::MSG_PEEK) {
                Ok(0) => return Greeting::Invalid,
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => return Greeting::Incomplete,
                Err(_) => return Greeting::Invalid,
            };
            let parsed = line.push(bytes.get(..count).unwrap_or_default());
            let taken = match parsed {
                Parsed::Incomplete => count,
                Parsed::Port { consumed, .. } => consumed,
                Parsed::Invalid => return Greeting::Invalid,
            };
            // It was just seen to be there.
            let _ = recv(socket.as_raw_fd(), bytes.get_mut(..taken).unwrap_or_default(), flags);
            if let Parsed::Port { port, .. } = parsed {
                return match self.peers.remove(&token) {
                    Some((socket, _)) => Greeting::Port(socket, port),
                    None => Greeting::Invalid,
                };
            }
        }
    }

    /// The peer has its stream, or is refused.
    pub fn done(&mut self, token: u32, poller: Poller<'_>) {
        if let Some((socket, _)) = self.peers.remove(&token) {
            poller.remove(&socket);
        }
        let first = self.deadlines.front().copied();
        self.deadlines.retain(|(_, other)| *other != token);
        if first != self.deadlines.front().copied() {
            self.set_timer();
        }
    }

    /// Those that waited for too long.
    pub fn expired(&mut self, now: Instant) -> Vec<u32> {
        // The timer is set anew below, whatever it counted.
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        let expired = due.map(|(_, token)| *token).collect();
        self.set_timer();
        expired
    }

    /// Nothing ticks while nobody waits.
    fn set_timer(&mut self) {
        // Setting a valid timer can't fail; a late one only keeps a silent peer for longer.
        let _ = match self.deadlines.front() {
            None => self.timer.clear(),
            Some((deadline, _)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.timer.reset(left.max(Duration::from_millis(1)), None)
            }
        };
    }
}

#[cfg(test)]
mod tests;
