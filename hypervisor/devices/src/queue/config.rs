//! A queue's registers, and the check that turns them into live queues.

use std::sync::Arc;

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::active::{ActiveQueue, Rings};
use crate::fault::{GuestFault, QueueSetupError};
use crate::shared_memory::Guard;
use crate::transport::Shared;

/// A part of a split queue (virtio 1.2, 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Descriptors,
    Available,
    Used,
}

/// Which word of an address a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Low,
    High,
}

/// The registers of one queue, as the driver wrote them, unchecked.
#[derive(Debug, Clone)]
pub(crate) struct QueueConfig {
    max_size: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl QueueConfig {
    pub fn new(max_size: u16) -> Self {
        Self { max_size, size: u32::from(max_size), ready: false, descriptors: 0, available: 0, used: 0 }
    }

    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    pub fn ready(&self) -> bool {
        self.ready
    }

    pub fn set_size(&mut self, size: u32) {
        self.size = size;
    }

    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    pub fn set_address(&mut self, part: Part, half: Half, value: u32) {
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Available => &mut self.available,
            Part::Used => &mut self.used,
        };
        *address = match half {
            Half::Low => *address & !u64::from(u32::MAX) | u64::from(value),
            Half::High => *address & u64::from(u32::MAX) | u64::from(value) << 32,
        };
    }

    fn checked(&self, memory: &GuestMemoryMmap, guard: &Guard) -> Result<(u16, [Area; 3]), QueueSetupError> {
        if !self.ready {
            return Err(QueueSetupError::NotReady);
        }
        let size = u16::try_from(self.size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= self.max_size)
            .ok_or(QueueSetupError::Size(self.size))?;
        let entries = u64::from(size);
        // Sizes and alignments: virtio 1.2, 2.7, with the event fields.
        let areas = [
            Area::new(self.descriptors, 16 * entries, 16),
            Area::new(self.available, 6 + 2 * entries, 2),
            Area::new(self.used, 6 + 8 * entries, 4),
        ];
        for area in &areas {
            area.check(memory)?;
            if !guard.allows(area.start, area.length) {
                return Err(QueueSetupError::PrivateMemory(area.start));
            }
        }
        Ok((size, areas))
    }
}

/// A range of guest memory that a ring takes.
#[derive(Debug, Clone, Copy)]
struct Area {
    start: u64,
    length: u64,
    alignment: u64,
}

impl Area {
    fn new(start: u64, length: u64, alignment: u64) -> Self {
        Self { start, length, alignment }
    }

    fn check(&self, memory: &GuestMemoryMmap) -> Result<(), QueueSetupError> {
        if !self.start.is_multiple_of(self.alignment) {
            return Err(QueueSetupError::Alignment(self.start));
        }
        let outside = QueueSetupError::OutsideMemory(self.start);
        self.start.checked_add(self.length).ok_or(outside)?;
        let length = usize::try_from(self.length).map_err(|_| outside)?;
        let access = Permissions::ReadWrite;
        if GuestMemory::check_range(memory, GuestAddress(self.start), length, access) {
            Ok(())
        } else {
            Err(outside)
        }
    }

    /// Both are checked, so that the sums don't overflow.
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.start.saturating_add(other.length)
            && other.start < self.start.saturating_add(self.length)
    }
}

/// Checks what the driver configured, and makes the queues that the device works with.
pub(crate) fn activate(
    configs: &[QueueConfig],
    memory: &Arc<GuestMemoryMmap>,
    guard: &Guard,
    features: u64,
    shared: &Arc<Shared>,
) -> Result<Vec<ActiveQueue>, GuestFault> {
    let mut taken: Vec<Area> = Vec::new();
    let mut queues = Vec::with_capacity(configs.len());
    for (index, config) in configs.iter().enumerate() {
        let fault = |reason| GuestFault::QueueSetup { queue: index, reason };
        let (size, areas) = config.checked(memory, guard).map_err(fault)?;
        for area in areas {
            if taken.iter().any(|other| other.overlaps(&area)) {
                return Err(fault(QueueSetupError::Overlap(area.start)));
            }
            taken.push(area);
        }
        let mut queue = Queue::new(config.max_size).map_err(GuestFault::Ring)?;
        queue.set_size(size);
        let [descriptors, available, used] = areas.map(|area| GuestAddress(area.start));
        queue.try_set_desc_table_address(descriptors).map_err(GuestFault::Ring)?;
        queue.try_set_avail_ring_address(available).map_err(GuestFault::Ring)?;
        queue.try_set_used_ring_address(used).map_err(GuestFault::Ring)?;
        queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        queue.set_ready(true);
        let rings = Rings { guard: guard.clone(), areas: areas.map(|area| (area.start, area.length)) };
        queues.push(ActiveQueue::new(queue, rings, Arc::clone(memory), Arc::clone(shared)));
    }
    Ok(queues)
}
