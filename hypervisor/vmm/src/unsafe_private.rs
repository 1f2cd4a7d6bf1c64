//! Giving the memory of one side of a page back to the host.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use kvm_bindings::{kvm_pre_fault_memory, kvm_userspace_memory_region2};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Drops the private side: a hole in the guest_memfd.
///
/// # Errors
/// The kernel refuses.
pub fn release_private(file: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, hole, offset, len) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Drops the shared side: the pages of the mapping at `address`, which reads as zeros then.
///
/// # Errors
/// The kernel refuses.
pub fn release_shared(address: u64, len: u64) -> Result<(), Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let start = address as *mut libc::c_void;
    // SAFETY: the caller, `PrivateMemory`, has checked that the range lies in a region, whose shared side is a mapping of
    // guest memory that lives as long as the machine. Rust has no references into it, only volatile accesses.
    Errno::result(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) }).map(drop)
}

/// A descriptor that an ioctl has just returned.
pub fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: the caller got it from the kernel this moment, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Shows memory with two sides to the guest.
///
/// # Errors
/// The kernel refuses.
pub fn set_region(vm: &VmFd, region: kvm_userspace_memory_region2) -> Result<(), Errno> {
    // SAFETY: the shared side is a mapping that the machine keeps as long as its CPUs, as in `unsafe_kernel::add_memory`;
    // the private side is a file, which KVM holds on to itself.
    unsafe { vm.set_user_memory_region2(region) }.map_err(|error| Errno::from_raw(error.errno()))
}

/// `KVM_PRE_FAULT_MEMORY`, which kvm-ioctls does not have.
pub const PRE_FAULT_MEMORY: libc::c_ulong = 0xc040_aed5;

/// Has KVM map guest memory before the guest touches it. What is done of `range` moves its start on.
///
/// # Errors
/// The kernel refuses or was interrupted.
pub fn pre_fault(vcpu: &VcpuFd, range: &mut kvm_pre_fault_memory) -> Result<(), Errno> {
    // SAFETY: the request reads and writes this structure only, which is of the size that its number says.
    Errno::result(unsafe { libc::ioctl(vcpu.as_raw_fd(), PRE_FAULT_MEMORY, &raw mut *range) }).map(drop)
}
