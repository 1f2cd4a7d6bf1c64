//! From the guest to the tap.

use std::io;
use std::os::fd::BorrowedFd;

use super::header;
use crate::chain::{Chain, Transfer, transfer};
use crate::fault::Fault;
use crate::queue::ActiveQueue;
use crate::worker::Progress;

/// An Ethernet header, and the largest TCP segment with its headers behind it.
const MIN_FRAME: usize = 14;
const MAX_FRAME: usize = 14 + 65535;
/// Frames before other devices have their turn.
const BUDGET: usize = 128;

/// The queue of what the guest sends.
pub(super) struct Transmitter {
    queue: ActiveQueue,
    features: u64,
    /// The tap took what it was given last.
    writable: bool,
}

impl Transmitter {
    pub fn new(queue: ActiveQueue, features: u64) -> Self {
        Self { queue, features, writable: true }
    }

    pub fn tap_writable(&mut self) {
        self.writable = true;
    }

    pub fn run(&mut self, tap: BorrowedFd<'_>) -> Result<Progress, Fault> {
        let memory = self.queue.memory();
        let mut progress = Progress::More;
        self.queue.silence()?;
        for _ in 0..BUDGET {
            if !self.writable {
                progress = Progress::Idle;
                break;
            }
            let Some(chain) = self.queue.pop(&memory)? else {
                if self.queue.ask_for_bell()? {
                    self.queue.silence()?;
                    continue;
                }
                progress = Progress::Idle;
                break;
            };
            let head = chain.head;
            match self.send(chain, tap)? {
                Sent::Taken => self.queue.push_used(head, 0)?,
                Sent::Full => {
                    self.queue.undo_pop();
                    self.writable = false;
                }
            }
        }
        self.queue.signal()?;
        Ok(progress)
    }

    /// Frames that can't be sent are lost, as on any wire.
    fn send(&self, mut chain: Chain<'_>, tap: BorrowedFd<'_>) -> Result<Sent, Fault> {
        let mut header = [0; header::SIZE];
        chain.readable.read(&mut header)?;
        let length = chain.readable.len();
        if !(MIN_FRAME..=MAX_FRAME).contains(&length) || !header::is_acceptable(&header, self.features) {
            return Ok(Sent::Taken);
        }
        match transfer(tap, Transfer::Write, &header, chain.readable.slices(), length) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Full),
            _ => Ok(Sent::Taken),
        }
    }
}

/// What became of a frame.
enum Sent {
    Taken,
    Full,
}
