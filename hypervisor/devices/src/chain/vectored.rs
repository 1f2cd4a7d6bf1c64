//! System calls that read or write guest memory directly.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// `UIO_MAXIOV`: the kernel refuses more.
const MAX_VECTORS: usize = 1024;

/// One way of moving bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// From a file, at its position, to the guest.
    Read,
    /// From an offset of a file to the guest.
    ReadAt(u64),
    /// From the guest to a file, at its position.
    Write,
    /// From the guest to an offset of a file.
    WriteAt(u64),
    /// From the guest to a socket, without a signal if it is closed.
    Send,
}

/// Moves at most `limit` bytes of `slices` between the guest and `file`, with one system call.
///
/// `prefix` goes first where bytes leave the guest; it must be empty where they arrive, and does not count.
/// The returned number of bytes includes it.
pub(crate) fn transfer<'s, 'm: 's>(
    file: BorrowedFd<'_>,
    how: Transfer,
    prefix: &[u8],
    slices: impl Iterator<Item = &'s VolatileSlice<'m>>,
    limit: usize,
) -> io::Result<usize> {
    if !prefix.is_empty() && matches!(how, Transfer::Read | Transfer::ReadAt(_)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut vectors = gather(prefix, slices, limit);
    let fd = file.as_raw_fd();
    let base = vectors.as_mut_ptr();
    // At most MAX_BUFFERS and one.
    let count = libc::c_int::try_from(vectors.len()).map_err(io::Error::other)?;
    // SAFETY: each vector is `prefix`, which is never written because it is empty for reads, or a part of a slice of
    // mapped guest memory. Both are borrowed until this function returns. Guest memory has no other owner
    // whose view could be broken: it is only ever accessed as volatile.
    let moved = unsafe {
        match how {
            Transfer::Read => libc::readv(fd, base, count),
            Transfer::ReadAt(offset) => libc::preadv(fd, base, count, file_offset(offset)?),
            Transfer::Write => libc::writev(fd, base, count),
            Transfer::WriteAt(offset) => libc::pwritev(fd, base, count, file_offset(offset)?),
            Transfer::Send => {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = base;
                message.msg_iovlen = vectors.len();
                libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            }
        }
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn gather<'s, 'm: 's>(
    prefix: &[u8],
    slices: impl Iterator<Item = &'s VolatileSlice<'m>>,
    limit: usize,
) -> Vec<libc::iovec> {
    let mut vectors = Vec::new();
    if !prefix.is_empty() {
        vectors.push(libc::iovec { iov_base: prefix.as_ptr().cast_mut().cast(), iov_len: prefix.len() });
    }
    let mut left = limit;
    for slice in slices.take(MAX_VECTORS - 1) {
        let length = slice.len().min(left);
        if length == 0 {
            break;
        }
        vectors.push(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: length });
        left -= length;
    }
    vectors
}
