//! Making a tap. The interface lives in the network namespace of the thread that makes it, and as long as its
//! descriptor.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

nix::ioctl_write_int!(tun_set_interface, b'T', 202);

/// A new tap with a name that the kernel chose, and that name.
///
/// # Errors
/// `/dev/net/tun` can't be opened, or refuses.
pub fn open() -> io::Result<(OwnedFd, String)> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let name = set_interface(&device)?;
    Ok((device.into(), name))
}

fn set_interface(device: &File) -> io::Result<String> {
    // SAFETY: ifreq is plain old data; all zeros is an empty name without flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    for (place, byte) in request.ifr_name.iter_mut().zip(b"nacre%d") {
        *place = byte.cast_signed();
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq at this address, which outlives the call.
    unsafe { tun_set_interface(device.as_raw_fd(), (&raw mut request) as libc::c_ulong) }?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    Ok(name.map(|byte| char::from(byte.cast_unsigned())).collect())
}
