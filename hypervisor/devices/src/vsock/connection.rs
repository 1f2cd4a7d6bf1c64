//! The state of one stream between a port of the guest and a port of the host. Decides; does no I/O.

use super::credit::Credit;
use super::packet::{HOST_CID, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};

/// What names a stream: no two live ones have both ports in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub guest: u32,
    pub host: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The guest was asked, or is about to be.
    Requested,
    Established,
}

/// A stream as the guest sees it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    stage: Stage,
    credit: Credit,
    /// The first packet, a request or a response, is still to be sent.
    opening_due: bool,
    credit_due: bool,
    /// The guest was asked for credit since it last gave some.
    credit_asked: bool,
    guest_sends: bool,
    guest_receives: bool,
    host_sends: bool,
    host_receives: bool,
    /// The shutdown flags that the guest was told.
    told: u32,
}

/// What follows from a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing beyond perhaps a packet back.
    None,
    /// The guest accepted the host's connection.
    Accepted,
    /// The payload is for the host.
    Deliver,
    /// The payload is for nobody: the host reads no more.
    Discard,
    /// The guest shut one or both directions; see [`Connection::guest_sends`] and [`Connection::guest_receives`].
    Shutdown,
    /// The guest shut both directions: it waits for a reset, after which the connection is gone for it.
    Finished,
    /// The guest reset the connection.
    Gone,
    /// The packet has no place here: reset the connection.
    Violation,
}

/// What to send to the guest next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A packet without payload.
    Control(Operation, u32),
    /// At most this many bytes of the host's.
    Data(u32),
}

impl Connection {
    /// A connection from the host, which the guest is to be asked for.
    pub fn from_host(window: u32) -> Self {
        Self::new(Stage::Requested, window)
    }

    /// A connection from the guest, which is granted.
    pub fn from_guest(window: u32, request: &Header) -> Self {
        let mut connection = Self::new(Stage::Established, window);
        connection.credit.update_peer(request.buffer, request.forwarded);
        connection
    }

    fn new(stage: Stage, window: u32) -> Self {
        Self {
            stage,
            credit: Credit::new(window),
            opening_due: true,
            credit_due: false,
            credit_asked: false,
            guest_sends: true,
            guest_receives: true,
            host_sends: true,
            host_receives: true,
            told: 0,
        }
    }

    /// The guest may still send.
    pub fn guest_sends(&self) -> bool {
        self.guest_sends
    }

    /// The guest still reads.
    pub fn guest_receives(&self) -> bool {
        self.guest_receives
    }

    /// Takes note of a packet from the guest.
    pub fn packet(&mut self, header: &Header) -> Reaction {
        let before = self.credit.peer_free();
        self.credit.update_peer(header.buffer, header.forwarded);
        if self.credit.peer_free() > before {
            self.credit_asked = false;
        }
        match (header.operation, self.stage) {
            (Some(Operation::Reset), _) => Reaction::Gone,
            (Some(Operation::Response), Stage::Requested) if !self.opening_due => {
                self.stage = Stage::Established;
                Reaction::Accepted
            }
            (Some(Operation::Data), Stage::Established) => self.data(header.length),
            (Some(Operation::Shutdown), Stage::Established) => self.shutdown(header.flags),
            (Some(Operation::CreditUpdate), Stage::Established) => Reaction::None,
            (Some(Operation::CreditRequest), Stage::Established) => {
                self.credit_due = true;
                Reaction::None
            }
            _ => Reaction::Violation,
        }
    }

    fn data(&mut self, length: u32) -> Reaction {
        if !self.guest_sends || self.credit.received(length).is_err() {
            return Reaction::Violation;
        }
        if self.host_receives {
            return Reaction::Deliver;
        }
        self.credit.forwarded(length);
        Reaction::Discard
    }

    fn shutdown(&mut self, flags: u32) -> Reaction {
        self.guest_receives &= flags & SHUTDOWN_RECEIVE == 0;
        self.guest_sends &= flags & SHUTDOWN_SEND == 0;
        if self.guest_receives || self.guest_sends { Reaction::Shutdown } else { Reaction::Finished }
    }

    /// `count` bytes of the guest's reached the host.
    pub fn delivered(&mut self, count: u32) {
        self.credit.forwarded(count);
    }

    /// The host sends no more; all that it sent was taken.
    pub fn host_finished(&mut self) {
        self.host_sends = false;
    }

    /// The host reads no more; what is held for it is lost.
    pub fn host_stopped_reading(&mut self) {
        self.host_receives = false;
        self.credit.forwarded(self.credit.held());
    }

    /// What to send now, given whether the host may have bytes. A payload is announced with [`Connection::header`].
    pub fn next(&mut self, host_has_data: bool) -> Option<Outgoing> {
        if self.opening_due {
            self.opening_due = false;
            let operation =
                if self.stage == Stage::Requested { Operation::Request } else { Operation::Response };
            return Some(Outgoing::Control(operation, 0));
        }
        if self.stage == Stage::Requested {
            return None;
        }
        let wants_to_send = host_has_data && self.host_sends && self.guest_receives;
        let free = self.credit.peer_free();
        if wants_to_send && free > 0 {
            return Some(Outgoing::Data(free));
        }
        if wants_to_send && !self.credit_asked {
            self.credit_asked = true;
            return Some(Outgoing::Control(Operation::CreditRequest, 0));
        }
        let ended = if self.host_sends { 0 } else { SHUTDOWN_SEND }
            | if self.host_receives { 0 } else { SHUTDOWN_RECEIVE };
        if ended & !self.told != 0 {
            self.told = ended;
            return Some(Outgoing::Control(Operation::Shutdown, ended));
        }
        if self.credit_due || (self.guest_sends && self.credit.report_due()) {
            return Some(Outgoing::Control(Operation::CreditUpdate, 0));
        }
        None
    }

    /// The header of a packet to the guest. It also carries our credit, and accounts for the payload.
    pub fn header(
        &mut self,
        guest_cid: u64,
        ports: Ports,
        operation: Operation,
        flags: u32,
        length: u32,
    ) -> Header {
        let (buffer, forwarded) = self.credit.report();
        self.credit_due = false;
        self.credit.sent(length);
        Header {
            source_cid: HOST_CID,
            destination_cid: guest_cid,
            source_port: ports.host,
            destination_port: ports.guest,
            length,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags,
            buffer,
            forwarded,
        }
    }
}

#[cfg(test)]
mod tests;
