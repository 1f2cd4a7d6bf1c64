//! The socket device (virtio 1.2, 5.10), joined to unix sockets of the host.
//!
//! Host to guest: a peer connects to the listener, sends `CONNECT <port>\n`, gets `OK <host port>\n` when the guest has
//! accepted, and is joined to the guest's port. It is closed when the guest does not listen there.
//! Guest to host: for a connection to one of the allowed ports a socket pair is made, the guest joined to one
//! end, and the other handed out. Any other port is refused.
//!
//! `packet`, `credit`, `connection` and `handshake` decide and do no I/O; `stream` and `device` do the I/O.

mod connection;
mod credit;
mod device;
mod greeter;
mod handshake;
mod packet;
mod receive;
mod stream;
mod table;
mod transmit;

use std::fmt;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use crate::transport::{self, Identity};
use crate::{Device, Wiring};

/// Receive, transmit, event.
const IDENTITY: Identity = Identity { device_id: VIRTIO_ID_VSOCK, features: 0, queue_sizes: &[128, 128, 16] };

/// The context id of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestCid(u32);

/// Not a guest's context id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is reserved and can't be a guest's context id")]
pub struct ReservedCid(pub u32);

impl TryFrom<u32> for GuestCid {
    type Error = ReservedCid;

    /// Refuses the ids that virtio 1.2, 5.10.4 reserves.
    fn try_from(cid: u32) -> Result<Self, ReservedCid> {
        if (3..u32::MAX).contains(&cid) { Ok(Self(cid)) } else { Err(ReservedCid(cid)) }
    }
}

/// A socket device.
pub struct Config {
    /// The guest's address.
    pub guest_cid: GuestCid,
    /// Where peers of the host connect.
    pub listener: UnixListener,
    /// Ports of the host to which the guest may connect.
    pub host_ports: Vec<u32>,
    /// Told what happens, on the device's thread: it must not block for long.
    pub events: Box<dyn FnMut(Event) + Send>,
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("guest_cid", &self.guest_cid)
            .field("host_ports", &self.host_ports)
            .finish_non_exhaustive()
    }
}

/// What a socket device reports.
#[derive(Debug)]
pub enum Event {
    /// The guest sent its first packet since the machine was made.
    FirstPacket,
    /// The guest connected to a port of the host.
    Connected {
        /// One of [`Config::host_ports`].
        port: u32,
        /// The other end of the stream.
        stream: UnixStream,
    },
}

/// Makes a socket device. The listener becomes non-blocking.
///
/// # Errors
/// The process is out of descriptors.
pub fn new(wiring: Wiring, config: Config) -> io::Result<Device> {
    config.listener.set_nonblocking(true)?;
    let space = u64::from(config.guest_cid.0).to_le_bytes().to_vec();
    transport::assemble(wiring, &IDENTITY, space, |_, _| device::Sockets::new(config))
}
