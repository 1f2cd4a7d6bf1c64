//! Packets to the guest.

use super::connection::Outgoing;
use super::device::{Outcome, Sockets};
use super::packet::{HEADER_SIZE, Header, Operation};
use super::stream::FromHost;
use crate::chain::{Buffers, Chain};
use crate::event_loop::Poller;
use crate::fault::{Fault, GuestFault};

/// Packets in one go.
const BUDGET: usize = 128;

impl Sockets {
    /// Fills the guest's buffers with what there is for it: refusals first, then each stream in turn.
    pub(super) fn receive(&mut self, poller: Poller<'_>) -> Result<Outcome, Fault> {
        let Some(memory) = self.queues.as_ref().map(|queues| queues.receive.memory()) else {
            return Ok(Outcome::Drained);
        };
        let mut outcome = Outcome::More;
        let mut spare: Option<Chain<'_>> = None;
        for _ in 0..BUDGET {
            if self.refusals.is_empty() && !self.table.has_ready() {
                outcome = Outcome::Drained;
                break;
            }
            let Some(queues) = &mut self.queues else { return Ok(Outcome::Drained) };
            let chain = match spare.take() {
                Some(chain) => chain,
                None => match queues.receive.pop(&memory)? {
                    Some(chain) => chain,
                    None if queues.receive.ask_for_bell()? => continue,
                    None => {
                        outcome = Outcome::Blocked;
                        break;
                    }
                },
            };
            let filled = self.fill(chain.writable.clone(), poller)?;
            let Some(queues) = &mut self.queues else { return Ok(Outcome::Drained) };
            match filled {
                Some(length) => queues.receive.push_used(chain.head, length)?,
                None => spare = Some(chain),
            }
        }
        if let (Some(queues), Some(_)) = (&mut self.queues, spare) {
            queues.receive.undo_pop();
        }
        Ok(outcome)
    }

    /// Puts the next packet into `buffers`. None if the one whose turn it was had none.
    fn fill(&mut self, mut buffers: Buffers<'_>, poller: Poller<'_>) -> Result<Option<usize>, Fault> {
        if let Some(header) = self.refusals.pop_front() {
            buffers.write(&header.to_bytes())?;
            return Ok(Some(HEADER_SIZE));
        }
        let Some(token) = self.table.next_ready() else { return Ok(None) };
        let filled = self.fill_from(token, &mut buffers)?;
        // Without a packet a stream has nothing until an event says otherwise.
        if filled.is_some() {
            self.table.list(token);
        }
        self.table.settle(token, poller)?;
        Ok(filled)
    }

    fn fill_from(&mut self, token: u32, buffers: &mut Buffers<'_>) -> Result<Option<usize>, Fault> {
        let guest_cid = self.guest_cid;
        let Some(stream) = self.table.get(token) else { return Ok(None) };
        let ports = stream.ports;
        loop {
            let readable = stream.readable();
            let Some(connection) = &mut stream.connection else { return Ok(None) };
            match connection.next(readable) {
                None => return Ok(None),
                Some(Outgoing::Control(operation, flags)) => {
                    let header = connection.header(guest_cid, ports, operation, flags, 0);
                    buffers.write(&header.to_bytes())?;
                    return Ok(Some(HEADER_SIZE));
                }
                Some(Outgoing::Data(credit)) => {
                    let (mut front, mut body) = split(buffers.clone())?;
                    let limit = usize::try_from(credit).unwrap_or(usize::MAX).min(body.len());
                    match stream.read(&mut body, limit) {
                        FromHost::Data(count) => {
                            let length = u32::try_from(count).unwrap_or(u32::MAX);
                            let Some(connection) = &mut stream.connection else { return Ok(None) };
                            let header: Header =
                                connection.header(guest_cid, ports, Operation::Data, 0, length);
                            front.write(&header.to_bytes())?;
                            return Ok(Some(HEADER_SIZE.saturating_add(count)));
                        }
                        FromHost::Empty => {}
                        FromHost::End => {
                            if let Some(connection) = &mut stream.connection {
                                connection.host_finished();
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The places of a header and of at least one byte of payload.
fn split(mut buffers: Buffers<'_>) -> Result<(Buffers<'_>, Buffers<'_>), GuestFault> {
    if buffers.len() <= HEADER_SIZE {
        return Err(GuestFault::ShortChain { available: buffers.len(), needed: HEADER_SIZE + 1 });
    }
    let front = buffers.split_to(HEADER_SIZE)?;
    Ok((front, buffers))
}
