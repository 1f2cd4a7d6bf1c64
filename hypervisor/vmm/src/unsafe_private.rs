//! Giving the memory of one side of a page back to the host.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

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
