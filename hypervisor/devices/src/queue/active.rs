//! A queue that a device works with.

use std::fmt;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::chain::Chain;
use crate::fault::GuestFault;
use crate::shared_memory::Guard;
use crate::transport::Shared;

/// Sizes in the rings (virtio 1.2, 2.7.6 and 2.7.8).
const AVAILABLE_HEADER: u64 = 4;
const USED_HEADER: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// A live queue: its configuration was checked and can't change.
///
/// Chains go back with [`ActiveQueue::push_used`]; [`ActiveQueue::signal`] interrupts the driver if it wants to
/// hear of them. Call that once for a batch: each interrupt costs the guest several exits.
pub(crate) struct ActiveQueue {
    queue: Queue,
    rings: Rings,
    memory: Arc<GuestMemoryMmap>,
    shared: Arc<Shared>,
    /// The used index when the driver was told of it last.
    signalled: Wrapping<u16>,
}

/// Where a queue's parts are, and who is asked whether they may be touched.
#[derive(Debug)]
pub(super) struct Rings {
    pub guard: Guard,
    /// Start and length of descriptors, available ring and used ring.
    pub areas: [(u64, u64); 3],
}

impl Rings {
    /// A guest can make a ring private at any time.
    fn check(&self) -> Result<(), GuestFault> {
        let private = |&&(start, length): &&(u64, u64)| !self.guard.allows(start, length);
        match self.areas.iter().find(private) {
            Some(&(start, _)) => Err(GuestFault::PrivateMemory(start)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ActiveQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ActiveQueue").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl ActiveQueue {
    pub(super) fn new(queue: Queue, rings: Rings, memory: Arc<GuestMemoryMmap>, shared: Arc<Shared>) -> Self {
        Self { queue, rings, memory, shared, signalled: Wrapping(0) }
    }

    /// The memory that chains are in. A chain borrows from it, not from the queue.
    pub fn memory(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.memory)
    }

    /// Takes the next chain that the driver made available.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemoryMmap) -> Result<Option<Chain<'m>>, GuestFault> {
        self.rings.check()?;
        let raw = self.queue.iter(memory).map_err(GuestFault::Ring)?.next();
        raw.map(|raw| Chain::read(raw, memory, &self.rings.guard)).transpose()
    }

    /// Gives the chain that was taken last back unused: it is the next again.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Returns a chain to the driver, with `written` bytes in its writable buffers.
    pub fn push_used(&mut self, head: u16, written: usize) -> Result<(), GuestFault> {
        self.push_used_together(&[(head, written)])
    }

    /// Returns chains that the driver must see at once or not at all, with the bytes written to each.
    pub fn push_used_together(&mut self, chains: &[(u16, usize)]) -> Result<(), GuestFault> {
        self.rings.check()?;
        let mut next = Wrapping(self.queue.next_used());
        for &(head, written) in chains {
            // A chain is at most 2^32 bytes, so nothing is lost.
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            let slot = u64::from(next.0 % self.queue.size());
            let element = (u64::from(written) << 32 | u64::from(head)).to_le();
            let address = self.in_used(USED_HEADER + slot * USED_ELEMENT);
            self.memory.write_obj(element, address).map_err(memory_fault)?;
            next += 1;
        }
        self.queue.set_next_used(next.0);
        // 2.7.8: the index comes after what it makes visible.
        self.memory.store(next.0.to_le(), self.in_used(2), Ordering::Release).map_err(memory_fault)
    }

    /// Interrupts the driver for what was used since the last call, unless it doesn't want that (2.7.7).
    pub fn signal(&mut self) -> Result<(), GuestFault> {
        let used = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.signalled, used);
        if used == before {
            return Ok(());
        }
        // The driver may have changed its mind while it looked at an index that was not moved yet.
        fence(Ordering::SeqCst);
        let wanted = if self.queue.event_idx_enabled() {
            let event = self.in_available(AVAILABLE_HEADER + 2 * u64::from(self.queue.size()));
            let event: u16 = self.memory.load(event, Ordering::Relaxed).map_err(memory_fault)?;
            used - Wrapping(u16::from_le(event)) - Wrapping(1) < used - before
        } else {
            let flags: u16 =
                self.memory.load(self.in_available(0), Ordering::Relaxed).map_err(memory_fault)?;
            u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        if wanted {
            self.shared.used();
        }
        Ok(())
    }

    // Both rings were found to be wholly in memory, so that the sums don't overflow.
    fn in_used(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.queue.used_ring().wrapping_add(offset))
    }

    fn in_available(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.queue.avail_ring().wrapping_add(offset))
    }

    /// Asks the driver for its bell with the next chain. True if there is one already, for which no bell will come.
    pub fn ask_for_bell(&mut self) -> Result<bool, GuestFault> {
        self.queue.enable_notification(&*self.memory).map_err(GuestFault::Ring)
    }

    /// Asks the driver not to ring its bell: each ring is an exit of a virtual CPU.
    pub fn silence(&mut self) -> Result<(), GuestFault> {
        self.queue.disable_notification(&*self.memory).map_err(GuestFault::Ring)
    }
}

fn memory_fault(error: GuestMemoryError) -> GuestFault {
    GuestFault::Ring(virtio_queue::Error::GuestMemory(error))
}
