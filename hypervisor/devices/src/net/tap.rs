//! Settings of a tap (`linux/if_tun.h`).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
};

use super::header;

/// `_IOW('T', 208, unsigned int)`
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
/// `_IOW('T', 216, int)`
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// Frames begin with the header of virtio 1.x, and nothing blocks.
pub(super) fn prepare(tap: BorrowedFd<'_>) -> io::Result<()> {
    let size = libc::c_int::try_from(header::SIZE).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one int behind the pointer, and keeps nothing.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = OFlag::from_bits_truncate(fcntl(tap, FcntlArg::F_GETFL)?);
    fcntl(tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Lets the host leave to the guest what its driver agreed to do.
pub(super) fn set_offloads(tap: BorrowedFd<'_>, features: u64) -> io::Result<()> {
    let agreed = |feature: u32, flag| if features & (1 << feature) == 0 { 0 } else { flag };
    let mut flags = agreed(VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM);
    if flags != 0 {
        // 5.1.3.1: segments need checksums.
        flags |= agreed(VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4) | agreed(VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6);
    }
    // SAFETY: this ioctl takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
