//! Kernel and initrd: read from their files straight into guest memory.

use std::fs::File;

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

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

pub(super) fn place_kernel(memory: &GuestMemory, mut file: File) -> Result<Kernel, BootError> {
    let lowest = GuestAddress(layout::EXTENDED_MEMORY);
    let loaded = Elf::load(memory, None, &mut file, Some(lowest)).map_err(BootError::Kernel)?;
    let entry = loaded.kernel_load.0;
    // The loader takes the entry from the header without a look at the segments.
    if entry >= loaded.kernel_end || !memory.address_in_range(loaded.kernel_load) {
        return Err(BootError::Entry(entry));
    }
    Ok(Kernel { entry, end: loaded.kernel_end })
}

/// At the end of the memory below the gap, where the kernel finds it out of its own way.
pub(super) fn place_initrd(
    memory: &GuestMemory,
    mut file: File,
    kernel_end: u64,
) -> Result<Initrd, BootError> {
    let size = file.metadata().map_err(BootError::InitrdUnreadable)?.len();
    if size == 0 {
        return Err(BootError::InitrdEmpty);
    }
    let low_end = memory.iter().next().map_or(0, low_memory_end);
    let room = (low_end & !(PAGE - 1)).saturating_sub(kernel_end.next_multiple_of(PAGE));
    let too_large = BootError::InitrdTooLarge { size, room };
    if size.next_multiple_of(PAGE) > room {
        return Err(too_large);
    }
    let (Ok(short), Ok(length)) = (u32::try_from(size), usize::try_from(size)) else { return Err(too_large) };
    let start = (low_end - size) & !(PAGE - 1);
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, length)
        .map_err(BootError::InitrdPlacing)?;
    Ok(Initrd { start, size: short })
}

fn low_memory_end(region: &vm_memory::GuestRegionMmap<()>) -> u64 {
    use vm_memory::{Address, GuestMemoryRegion};
    region.last_addr().raw_value() + 1
}
