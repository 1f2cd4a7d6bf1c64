//! The host's side of one stream: a unix socket, and what it could not take yet.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, send};
use vmm_sys_util::epoll::EventSet;

use super::connection::{Connection, Ports};
use crate::chain::{Buffers, Transfer};
use crate::event_loop::Poller;
use crate::fault::GuestFault;

/// Bytes of a closing socket that are thrown away in one portion, and how many portions.
const DISCARD: usize = 16 * 1024;
const MAX_DISCARDS: usize = 64;

/// A stream.
pub(super) struct Stream {
    pub token: u32,
    pub ports: Ports,
    /// None when the guest's side is over and only `spill` is left to write.
    pub connection: Option<Connection>,
    /// It is in the list of those that may have something for the guest.
    pub listed: bool,
    socket: UnixStream,
    /// Received from the guest and not taken by the host: at most the connection's window.
    spill: VecDeque<u8>,
    /// Not found empty since the last edge.
    readable: bool,
    waits_for_room: bool,
    /// The host was told that the guest sends no more, and that it reads no more.
    told_end: bool,
    told_deaf: bool,
}

/// What reading from the host gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromHost {
    Data(usize),
    Empty,
    /// There will be no more.
    End,
}

impl Stream {
    pub fn new(token: u32, ports: Ports, connection: Connection, socket: UnixStream) -> Self {
        Self {
            token,
            ports,
            connection: Some(connection),
            listed: false,
            socket,
            spill: VecDeque::new(),
            readable: true,
            waits_for_room: false,
            told_end: false,
            told_deaf: false,
        }
    }

    /// Which events of the socket matter. Edges: a socket that can't be served now is not a busy loop.
    pub fn interest(waits_for_room: bool) -> EventSet {
        let always = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        if waits_for_room { always | EventSet::OUT } else { always }
    }

    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub fn readable(&self) -> bool {
        self.readable
    }

    pub fn is_flushed(&self) -> bool {
        self.spill.is_empty()
    }

    /// Takes note of what happened to the socket.
    pub fn event(&mut self, events: EventSet) {
        // An end shows as something to read, too.
        self.readable |= !events.difference(EventSet::OUT).is_empty();
        if events.contains(EventSet::HANG_UP) {
            self.stop_writing();
        }
    }

    /// Says where the peer of the host is. False if it does not take even that.
    pub fn greet(&mut self) -> bool {
        let line = format!("OK {}\n", self.ports.host);
        let sent =
            send(self.socket.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
        sent == Ok(line.len())
    }

    /// Passes a payload on, and keeps what the host does not take now.
    pub fn deliver(&mut self, payload: &mut Buffers<'_>) -> Result<(), GuestFault> {
        while self.spill.is_empty() && !payload.is_empty() {
            let limit = payload.len();
            match payload.transfer(self.socket.as_fd(), Transfer::Send, limit) {
                Ok(count) => self.delivered(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.stop_writing();
                    return Ok(());
                }
            }
        }
        if !payload.is_empty() {
            let mut rest = vec![0; payload.len()];
            payload.read(&mut rest)?;
            self.spill.extend(rest);
        }
        Ok(())
    }

    /// Writes what was kept, as far as the host takes it.
    pub fn flush(&mut self) {
        while !self.spill.is_empty() {
            let (front, _) = self.spill.as_slices();
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.socket.as_raw_fd(), front, flags) {
                Ok(count) => {
                    self.spill.drain(..count);
                    self.delivered(count);
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return,
                Err(_) => self.stop_writing(),
            }
        }
        // A stream that was stalled once need not keep the memory for it.
        self.spill = VecDeque::new();
    }

    /// Asks to hear of room in the socket while, and only while, something waits for it.
    pub fn watch(&mut self, poller: Poller<'_>) -> io::Result<()> {
        let waits = !self.spill.is_empty();
        if waits != self.waits_for_room {
            self.waits_for_room = waits;
            poller.modify(&self.socket, self.token, Self::interest(waits))?;
        }
        Ok(())
    }

    /// Reads at most `limit` bytes for the guest.
    pub fn read(&mut self, buffers: &mut Buffers<'_>, limit: usize) -> FromHost {
        loop {
            match buffers.transfer(self.socket.as_fd(), Transfer::Read, limit) {
                Ok(0) => {
                    self.readable = false;
                    return FromHost::End;
                }
                Ok(count) => return FromHost::Data(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return FromHost::Empty;
                    }
                    self.stop_writing();
                    return FromHost::End;
                }
            }
        }
    }

    /// Passes on which directions the guest shut, as soon as nothing is left to write.
    pub fn pass_shutdown_on(&mut self) {
        let Some(connection) = &self.connection else { return };
        // Fails only for a peer that is gone, which an event tells.
        if !connection.guest_sends() && self.spill.is_empty() && !self.told_end {
            self.told_end = true;
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        if !connection.guest_receives() && !self.told_deaf {
            self.told_deaf = true;
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }

    /// Ends the stream so that the peer reads everything and then the end, not an error.
    pub fn close(mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        // The kernel reports a reset to the peer of a socket that is closed with unread bytes.
        let mut nowhere = [0; DISCARD];
        for _ in 0..MAX_DISCARDS {
            if !matches!(self.socket.read(&mut nowhere), Ok(1..)) {
                break;
            }
        }
    }

    fn delivered(&mut self, count: usize) {
        if let Some(connection) = &mut self.connection {
            connection.delivered(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    fn stop_writing(&mut self) {
        self.spill = VecDeque::new();
        if let Some(connection) = &mut self.connection {
            connection.host_stopped_reading();
        }
    }
}
