//! Events of the kernel's devices.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// The group of events that come from the kernel itself.
const FROM_KERNEL: u32 = 1;

/// The kernel's bound on an event.
const MAX_EVENT: usize = 8192;

/// A listener for events.
pub struct Uevents {
    socket: AsyncFd<OwnedFd>,
}

impl Uevents {
    /// Listens from now on.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, FROM_KERNEL))?;
        Ok(Self { socket: readiness::watch(socket)? })
    }

    /// Waits for any event. That events were lost counts as one.
    pub async fn next(&self) -> io::Result<()> {
        self.socket
            .async_io(Interest::READABLE, |socket| {
                let mut event = [0; MAX_EVENT];
                match recv(socket.as_raw_fd(), &mut event, MsgFlags::empty()) {
                    Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            })
            .await
    }
}
