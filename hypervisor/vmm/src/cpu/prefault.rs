//! Mapping private memory before the guest touches it.
//!
//! A guest that takes its memory into use leaves it for each page that KVM has not mapped yet. The CPUs that the guest has
//! not started have nothing else to do, so their threads map it meanwhile, each a part: off the way of the first CPU.

use kvm_bindings::kvm_pre_fault_memory;
use kvm_ioctls::VcpuFd;
use nacre_stage0_abi::{AddressRange, PAGE_SIZE};
use nix::errno::Errno;

use crate::unsafe_private;

/// The part of `range` for helper `number` of `count`.
#[must_use]
pub fn share(range: AddressRange, number: u64, count: u64) -> Option<AddressRange> {
    let part = (range.len() / PAGE_SIZE).div_ceil(count.max(1)) * PAGE_SIZE;
    let start = range.start().checked_add(part.checked_mul(number)?)?;
    AddressRange::new(start, range.end().checked_sub(start)?.min(part))
}

/// Maps `range`, as far as KVM does.
///
/// # Errors
/// KVM can't; the guest then gets its memory page by page, as without this.
pub fn prefault(vcpu: &VcpuFd, range: AddressRange) -> Result<(), Errno> {
    let mut rest = kvm_pre_fault_memory { gpa: range.start(), size: range.len(), ..Default::default() };
    while rest.size > 0 {
        let before = rest.size;
        match unsafe_private::pre_fault(vcpu, &mut rest) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
            // It takes no more, and gives no reason.
            Ok(()) if rest.size >= before => return Err(Errno::EIO),
            Ok(()) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_pages_that_cover_the_range_once() {
        for (pages, count) in [(1, 1), (7, 3), (8, 3), (2, 5), (100, 64)] {
            let range = AddressRange::new(0x10_0000, pages * PAGE_SIZE).unwrap();
            let shares: Vec<_> = (0..count).filter_map(|number| share(range, number, count)).collect();
            assert!(shares.iter().all(|share| share.is_page_aligned()));
            assert_eq!(shares.first().map(|share| share.start()), Some(range.start()));
            assert_eq!(shares.last().map(|share| share.end()), Some(range.end()));
            assert!(shares.windows(2).all(|pair| pair[0].end() == pair[1].start()));
        }
    }
}
