//! Kernel and initrd: read from their files straight into guest memory, side by side.

use std::fs::File;
use std::panic;
use std::thread;

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::BootError;
use crate::layout;
use crate::memory::GuestMemory;

const PAGE: u64 = 4096;

pub(super) struct Kernel {
    pub(super) entry: u64,
    pub(super) end: u64,
}

pub(super) struct Initrd {
    pub(super) start: u64,
    pub(super) size: u32,
}

/// Places both. The initrd goes to the end of the memory below the gap, where the kernel finds it out of its own way.
pub(super) fn place(
    memory: &GuestMemory,
    kernel: File,
    mut initrd: File,
) -> Result<(Kernel, Initrd), BootError> {
    let size = initrd.metadata().map_err(BootError::InitrdUnreadable)?.len();
    if size == 0 {
        return Err(BootError::InitrdEmpty);
    }
    let low_end = memory.iter().next().map_or(0, |region| region.last_addr().raw_value() + 1) & !(PAGE - 1);
    let start = low_end.saturating_sub(size.next_multiple_of(PAGE));
    let lengths = u32::try_from(size).ok().zip(usize::try_from(size).ok());
    let lengths = lengths.filter(|_| start >= layout::EXTENDED_MEMORY);
    thread::scope(|scope| {
        let read = |length| {
            let place = GuestAddress(start);
            let read = move || memory.read_exact_volatile_from(place, &mut initrd, length);
            thread::Builder::new().name("initrd".to_owned()).spawn_scoped(scope, read)
        };
        let reading = lengths.map(|(_, length)| read(length)).transpose().map_err(BootError::Thread)?;
        let kernel = place_kernel(memory, kernel)?;
        let room = low_end.saturating_sub(kernel.end.next_multiple_of(PAGE));
        let (Some((size, _)), Some(reading), true) = (lengths, reading, start >= kernel.end) else {
            return Err(BootError::InitrdTooLarge { size, room });
        };
        reading
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            .map_err(BootError::InitrdPlacing)?;
        Ok((kernel, Initrd { start, size }))
    })
}

fn place_kernel(memory: &GuestMemory, mut file: File) -> Result<Kernel, BootError> {
    let lowest = GuestAddress(layout::EXTENDED_MEMORY);
    let loaded = Elf::load(memory, None, &mut file, Some(lowest)).map_err(BootError::Kernel)?;
    let entry = loaded.kernel_load.0;
    // The loader takes the entry from the header without a look at the segments.
    if entry >= loaded.kernel_end || !memory.address_in_range(loaded.kernel_load) {
        return Err(BootError::Entry(entry));
    }
    Ok(Kernel { entry, end: loaded.kernel_end })
}
