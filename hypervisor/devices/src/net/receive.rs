//! From the tap to the guest.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_MRG_RXBUF};
use vm_memory::GuestMemoryMmap;

use super::header;
use crate::chain::{Chain, Transfer, transfer};
use crate::fault::{Fault, GuestFault};
use crate::queue::ActiveQueue;
use crate::worker::Progress;

/// What a frame may need with its header, an Ethernet header and a VLAN tag.
const OVERHEAD: usize = header::SIZE + 18;
/// Frames before other devices have their turn.
const BUDGET: usize = 128;

/// The queue of buffers for what the guest gets.
///
/// Whether the tap has frames and whether the guest has buffers are both remembered: neither a frame nor a
/// refill is missed when the other comes first (CVE-2020-16843).
pub(super) struct Receiver {
    queue: ActiveQueue,
    /// A frame may take several chains.
    mergeable: bool,
    /// Room for the largest frame that the tap may have.
    room: usize,
    /// The tap was not found empty since it last told of a frame.
    readable: bool,
}

impl Receiver {
    pub fn new(queue: ActiveQueue, features: u64, mtu: u16) -> Self {
        let agreed = |feature: u32| features & (1 << feature) != 0;
        let segments = agreed(VIRTIO_NET_F_GUEST_TSO4) || agreed(VIRTIO_NET_F_GUEST_TSO6);
        let frame = if segments { u16::MAX } else { mtu };
        Self {
            queue,
            mergeable: agreed(VIRTIO_NET_F_MRG_RXBUF),
            room: usize::from(frame) + OVERHEAD,
            readable: true,
        }
    }

    pub fn tap_readable(&mut self) {
        self.readable = true;
    }

    pub fn run(&mut self, tap: BorrowedFd<'_>) -> Result<Progress, Fault> {
        let memory = self.queue.memory();
        let mut chains = VecDeque::new();
        let mut progress = Progress::More;
        self.queue.silence()?;
        for _ in 0..BUDGET {
            if !self.readable || !self.gather(&mut chains, &memory)? {
                progress = Progress::Idle;
                break;
            }
            self.receive(&mut chains, tap)?;
        }
        for _ in &chains {
            self.queue.undo_pop();
        }
        self.queue.signal()?;
        Ok(progress)
    }

    /// Takes chains until the largest frame fits. False if the guest has to bring more first; its bell will tell.
    fn gather<'m>(
        &mut self,
        chains: &mut VecDeque<Chain<'m>>,
        memory: &'m GuestMemoryMmap,
    ) -> Result<bool, GuestFault> {
        let mut room: usize = chains.iter().map(|chain| chain.writable.len()).sum();
        loop {
            let enough = if self.mergeable { room >= self.room } else { !chains.is_empty() };
            if enough {
                return Ok(true);
            }
            if let Some(chain) = self.queue.pop(memory)? {
                room = room.saturating_add(chain.writable.len());
                chains.push_back(chain);
            } else if !self.queue.ask_for_bell()? {
                return Ok(false);
            }
        }
    }

    fn receive(&mut self, chains: &mut VecDeque<Chain<'_>>, tap: BorrowedFd<'_>) -> Result<(), Fault> {
        let usable = if self.mergeable { chains.len() } else { 1 };
        let slices = chains.iter().take(usable).flat_map(|chain| chain.writable.slices());
        let length = match transfer(tap, Transfer::Read, &[], slices, self.room) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            // The tap is empty, or down. An edge tells when that changes.
            Err(_) => {
                self.readable = false;
                return Ok(());
            }
        };
        let Some(mut header) = chains.front().map(|chain| chain.writable.clone()) else { return Ok(()) };
        let mut left = length;
        let mut used = Vec::new();
        while left > 0 {
            let Some(chain) = chains.pop_front() else { break };
            let part = left.min(chain.writable.len());
            used.push((chain.head, part));
            left -= part;
        }
        let count = u16::try_from(used.len()).unwrap_or(u16::MAX);
        header.read(&mut [0; header::BUFFERS_OFFSET])?;
        header.write(&count.to_le_bytes())?;
        Ok(self.queue.push_used_together(&used)?)
    }
}
