//! Guest memory: one memfd, mapped shared, filled only as the guest touches it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::{layout, unsafe_kernel};

/// The guest's memory as all parts of the VMM see it.
pub type GuestMemory = GuestMemoryMmap<()>;

/// The least that the kernel, the initrd and a process need.
pub const MIN_MEMORY_MIB: u32 = 64;
const MIB: u64 = 1 << 20;

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The configuration asks for less than a guest can start with.
    #[error("{0} MiB of guest memory are too few, the least is {MIN_MEMORY_MIB}")]
    TooSmall(u32),
    /// The host does not have as much, even if nothing else ran on it.
    #[error("the host has {host_mib} MiB of memory and swap, too little for a guest with {wanted_mib} MiB")]
    HostTooSmall {
        /// The guest's size.
        wanted_mib: u32,
        /// The host's size.
        host_mib: u64,
    },
    /// The kernel gave no memory file.
    #[error("can't make a memory file of {0} MiB")]
    File(u32, #[source] nix::Error),
    /// The address space or the host's commit limit is exhausted.
    #[error("can't map guest memory")]
    Map(#[source] MmapRegionError),
    /// The mapping can't be kept out of core dumps.
    #[error("can't exclude guest memory from core dumps")]
    Advise(#[source] nix::Error),
    /// The regions do not form an address space.
    #[error("guest memory regions overlap")]
    Overlap,
}

/// Splits `memory_mib` into (address, size) below and above the gap for devices, both in bytes.
pub fn regions(memory_mib: u32) -> Vec<(u64, u64)> {
    let size = u64::from(memory_mib) * MIB;
    let low = size.min(layout::LOW_MEMORY_END);
    let mut regions = vec![(0, low)];
    if size > low {
        regions.push((layout::HIGH_MEMORY, size - low));
    }
    regions
}

/// Makes `memory_mib` MiB of guest memory. No page of it is touched.
///
/// # Errors
/// See [`MemoryError`].
pub fn allocate(memory_mib: u32) -> Result<GuestMemory, MemoryError> {
    if memory_mib < MIN_MEMORY_MIB {
        return Err(MemoryError::TooSmall(memory_mib));
    }
    check_host(memory_mib)?;
    let file = Arc::new(File::from(memory_file(memory_mib)?));
    let mut offset = 0;
    let mut mapped = Vec::new();
    for (address, size) in regions(memory_mib) {
        mapped.push(map(&file, offset, address, size)?);
        offset += size;
    }
    GuestMemory::from_regions(mapped).map_err(|_| MemoryError::Overlap)
}

fn memory_file(memory_mib: u32) -> Result<OwnedFd, MemoryError> {
    let failed = |errno| MemoryError::File(memory_mib, errno);
    let file = memfd_create(c"nacre-guest", MFdFlags::MFD_CLOEXEC).map_err(failed)?;
    let size = i64::from(memory_mib) << 20;
    nix::unistd::ftruncate(&file, size).map_err(failed)?;
    Ok(file)
}

fn map(file: &Arc<File>, offset: u64, address: u64, size: u64) -> Result<GuestRegionMmap<()>, MemoryError> {
    let size = usize::try_from(size).map_err(|_| MemoryError::Overlap)?;
    let region = MmapRegion::build(
        Some(FileOffset::from_arc(Arc::clone(file), offset)),
        size,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_NORESERVE,
    )
    .map_err(MemoryError::Map)?;
    unsafe_kernel::exclude_from_dumps(&region).map_err(MemoryError::Advise)?;
    GuestRegionMmap::new(region, GuestAddress(address)).ok_or(MemoryError::Overlap)
}

/// Pages come when they are touched, and a host without memory then kills somebody. What can never fit is
/// refused here, with a message.
fn check_host(memory_mib: u32) -> Result<(), MemoryError> {
    let Ok(host) = nix::sys::sysinfo::sysinfo() else { return Ok(()) };
    let host_mib = (host.ram_total().saturating_add(host.swap_total())) / MIB;
    if u64::from(memory_mib) > host_mib {
        return Err(MemoryError::HostTooSmall { wanted_mib: memory_mib, host_mib });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[rstest]
    #[case(64, vec![(0, 64 << 20)])]
    #[case(257, vec![(0, 257 << 20)])]
    #[case(3072, vec![(0, 0xC000_0000)])]
    #[case(3073, vec![(0, 0xC000_0000), (0x1_0000_0000, 1 << 20)])]
    #[case(8192, vec![(0, 0xC000_0000), (0x1_0000_0000, 0x1_4000_0000)])]
    fn memory_leaves_the_gap_for_devices_free(#[case] mib: u32, #[case] expected: Vec<(u64, u64)>) {
        assert_eq!(regions(mib), expected);
    }

    #[test]
    fn memory_is_zero_writable_and_not_beyond_its_end() {
        let memory = allocate(64).unwrap();
        let end = GuestAddress(64 << 20);
        assert!(!memory.address_in_range(end));
        memory.write_obj(7u32, GuestAddress(0x1000)).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 7);
    }

    #[test]
    fn impossible_sizes_are_refused_by_number() {
        let refused = |mib| allocate(mib).unwrap_err().to_string();
        assert_eq!(refused(63), "63 MiB of guest memory are too few, the least is 64");
        assert!(refused(u32::MAX).contains("too little for a guest with 4294967295 MiB"));
    }
}
