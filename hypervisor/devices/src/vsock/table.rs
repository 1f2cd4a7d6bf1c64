//! All streams of a device, and which of them may have something for the guest.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;

use super::connection::{Connection, Ports};
use super::stream::Stream;
use crate::event_loop::Poller;

/// The most streams, counted until their last byte has reached the host.
pub(super) const MAX_STREAMS: usize = 512;
/// SECURITY: a window is memory that the guest can make us use. The first streams get a large one, for speed; while
/// there are many, further ones get a small one. In all 32 + 30 MiB at most.
const LARGE_WINDOW: u32 = 1 << 20;
const SMALL_WINDOW: u32 = 64 << 10;
const LARGE_WINDOWS: usize = 32;
/// The host's ports for its own connections are those from here to 2^31.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// The streams.
#[derive(Default)]
pub(super) struct Table {
    streams: HashMap<u32, Stream>,
    by_ports: HashMap<Ports, u32>,
    /// Tokens of streams that may have something for the guest, each once.
    ready: VecDeque<u32>,
    ports_given: u32,
}

impl Table {
    pub fn is_full(&self) -> bool {
        self.streams.len() >= MAX_STREAMS
    }

    /// How much of the guest's a new stream may keep.
    pub fn window(&self) -> u32 {
        if self.streams.len() < LARGE_WINDOWS { LARGE_WINDOW } else { SMALL_WINDOW }
    }

    pub fn contains(&self, token: u32) -> bool {
        self.streams.contains_key(&token)
    }

    pub fn get(&mut self, token: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&token)
    }

    /// The live stream between these ports.
    pub fn find(&mut self, ports: Ports) -> Option<&mut Stream> {
        self.streams.get_mut(self.by_ports.get(&ports)?)
    }

    /// A port of the host that no live stream to `guest` has. They go round, so that a port is not used again soon.
    pub fn free_ports(&mut self, guest: u32) -> Ports {
        loop {
            let host = FIRST_HOST_PORT + self.ports_given;
            self.ports_given = (self.ports_given + 1) % FIRST_HOST_PORT;
            let ports = Ports { guest, host };
            // There are far fewer streams than ports.
            if !self.by_ports.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// Adds a stream whose socket is registered under `token`. Its first packet is due.
    pub fn insert(&mut self, token: u32, ports: Ports, connection: Connection, socket: UnixStream) {
        self.by_ports.insert(ports, token);
        self.streams.insert(token, Stream::new(token, ports, connection, socket));
        self.list(token);
    }

    /// Puts a stream among those that may have something for the guest.
    pub fn list(&mut self, token: u32) {
        if let Some(stream) = self.streams.get_mut(&token)
            && !stream.listed
        {
            stream.listed = true;
            self.ready.push_back(token);
        }
    }

    /// The stream whose turn it is. It is not listed any more.
    pub fn next_ready(&mut self) -> Option<u32> {
        while let Some(token) = self.ready.pop_front() {
            if let Some(stream) = self.streams.get_mut(&token) {
                stream.listed = false;
                return Some(token);
            }
        }
        None
    }

    /// Whether any stream may have something for the guest.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The guest's side of a stream is over: its ports are free, and it goes when the host has got everything.
    pub fn detach(&mut self, token: u32, poller: Poller<'_>) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&token) else { return Ok(()) };
        if stream.connection.take().is_some() {
            self.by_ports.remove(&stream.ports);
        }
        self.settle(token, poller)
    }

    /// After something changed: watches the socket as needed, or closes it if nothing is left to do.
    pub fn settle(&mut self, token: u32, poller: Poller<'_>) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&token) else { return Ok(()) };
        if stream.connection.is_some() || !stream.is_flushed() {
            stream.pass_shutdown_on();
            return stream.watch(poller);
        }
        if let Some(stream) = self.streams.remove(&token) {
            poller.remove(stream.socket());
            stream.close();
        }
        Ok(())
    }

    /// Ends all streams.
    pub fn clear(&mut self, poller: Poller<'_>) {
        for (_, stream) in self.streams.drain() {
            poller.remove(stream.socket());
            stream.close();
        }
        self.by_ports.clear();
        self.ready.clear();
    }
}
