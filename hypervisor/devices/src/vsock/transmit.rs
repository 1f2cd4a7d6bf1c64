//! Packets from the guest.

use std::io;
use std::os::unix::net::UnixStream;

use super::Event;
use super::connection::{Connection, Ports, Reaction};
use super::device::{Outcome, Sockets};
use super::packet::{HEADER_SIZE, HOST_CID, Header, Operation, TYPE_STREAM};
use super::stream::Stream;
use crate::chain::{Buffers, Chain};
use crate::event_loop::Poller;
use crate::fault::{Fault, GuestFault};

/// Packets in one go.
const BUDGET: usize = 128;
/// Refusals that may wait for the guest's buffers before its packets do.
const MAX_REFUSALS: usize = 64;

impl Sockets {
    /// Takes what the guest sent.
    pub(super) fn transmit(&mut self, poller: Poller<'_>) -> Result<Outcome, Fault> {
        let Some(memory) = self.queues.as_ref().map(|queues| queues.transmit.memory()) else {
            return Ok(Outcome::Drained);
        };
        for _ in 0..BUDGET {
            if self.refusals.len() >= MAX_REFUSALS {
                return Ok(Outcome::Blocked);
            }
            let Some(queues) = &mut self.queues else { return Ok(Outcome::Drained) };
            let Some(chain) = queues.transmit.pop(&memory)? else {
                if queues.transmit.ask_for_bell()? {
                    continue;
                }
                return Ok(Outcome::Drained);
            };
            let head = chain.head;
            self.packet(chain, poller)?;
            if let Some(queues) = &mut self.queues {
                queues.transmit.push_used(head, 0)?;
            }
        }
        Ok(Outcome::More)
    }

    fn packet(&mut self, mut chain: Chain<'_>, poller: Poller<'_>) -> Result<(), Fault> {
        let mut bytes = [0; HEADER_SIZE];
        chain.readable.read(&mut bytes)?;
        let header = Header::parse(&bytes);
        let mut payload = payload(&header, chain.readable)?;
        if !self.heard_of_guest {
            self.heard_of_guest = true;
            (self.events)(Event::FirstPacket);
        }
        // 5.10.6.4: a packet from elsewhere is nobody's.
        if header.source_cid != self.guest_cid {
            return Ok(());
        }
        if header.kind != TYPE_STREAM || header.destination_cid != HOST_CID {
            self.refuse(&header);
            return Ok(());
        }
        let ports = Ports { guest: header.source_port, host: header.destination_port };
        let Some(stream) = self.table.find(ports) else {
            if header.operation != Some(Operation::Request) || !self.open(ports, &header, poller)? {
                self.refuse(&header);
            }
            return Ok(());
        };
        let token = stream.token;
        let reaction =
            stream.connection.as_mut().map_or(Reaction::Gone, |connection| connection.packet(&header));
        match reaction {
            Reaction::Deliver => stream.deliver(&mut payload)?,
            // The guest waits for the answer to its shutdown, and frees its side by it.
            Reaction::Finished | Reaction::Violation => self.refuse(&header),
            _ => {}
        }
        Ok(self.react(token, reaction, poller)?)
    }

    /// Joins the guest to a new stream of the host. False if it may not or can't be.
    fn open(&mut self, ports: Ports, request: &Header, poller: Poller<'_>) -> io::Result<bool> {
        if self.table.is_full() || !self.host_ports.contains(&ports.host) {
            return Ok(false);
        }
        // Too few descriptors are no reason to stop the device.
        let Ok((ours, theirs)) = UnixStream::pair() else { return Ok(false) };
        ours.set_nonblocking(true)?;
        let token = self.new_token();
        poller.add(&ours, token, Stream::interest(false))?;
        let connection = Connection::from_guest(self.table.window(), request);
        self.table.insert(token, ports, connection, ours);
        (self.events)(Event::Connected { port: ports.host, stream: theirs });
        Ok(true)
    }

    /// Answers with a reset, unless the packet is one.
    fn refuse(&mut self, header: &Header) {
        if header.operation != Some(Operation::Reset) {
            self.refusals.push_back(header.refusal());
        }
    }
}

/// The payload that the header speaks of.
fn payload<'m>(header: &Header, mut rest: Buffers<'m>) -> Result<Buffers<'m>, GuestFault> {
    let present = rest.len();
    usize::try_from(header.length)
        .ok()
        .filter(|length| *length <= present)
        .and_then(|length| rest.split_to(length).ok())
        .ok_or(GuestFault::VsockLength { claimed: header.length, present })
}
