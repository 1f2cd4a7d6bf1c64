//! Guest memory: anonymous, in huge pages where the host has them, filled only as the guest touches it.
//!
//! A memfd would be the other choice, but by default Linux gives it no huge pages (`shmem_enabled` is "never"):
//! measured with the same kernel and 256 MiB, a start to init then leaves the guest 6500 times for a page of
//! 4 KiB; with huge pages, 18 times. Nobody but KVM and this process maps the memory, so no file is needed.

use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

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
    let mapped = regions(memory_mib).into_iter().map(map).collect::<Result<Vec<_>, _>>()?;
    GuestMemory::from_regions(mapped).map_err(|_| MemoryError::Overlap)
}

fn map((address, size): (u64, u64)) -> Result<GuestRegionMmap<()>, MemoryError> {
    let size = usize::try_from(size).map_err(|_| MemoryError::Overlap)?;
    let region = MmapRegion::build(
        None,
        size,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    )
    .map_err(MemoryError::Map)?;
    unsafe_kernel::exclude_from_dumps(&region).map_err(MemoryError::Advise)?;
    unsafe_kernel::prefer_huge_pages(&region);
    unsafe_kernel::name_mapping(&region, c"nacre-guest");
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
