//! The messages between the shim and its VMM, and the socket that carries them.
//!
//! The shim makes a pair of `SOCK_SEQPACKET` sockets, starts `nacre-vmm` with one end as descriptor
//! [`CONTROL_FD`], and speaks in [`Request`]s; the VMM answers and reports in [`Event`]s. Open files travel
//! with the message that names them, as `SCM_RIGHTS`: the VMM opens nothing by name.
//!
//! SECURITY: the guest may take over the VMM. Whatever the shim receives here is bounded in size and checked
//! before use; it never carries a path.

pub mod channel;
mod event;
mod request;
mod tee;

pub use channel::{Channel, ChannelError};
pub use event::{Event, Moment, StopReason};
pub use request::{
    Backing, ConsoleConfig, DiskConfig, Extent, FileIndex, Irqchip, NetConfig, Request, VmConfig, VsockConfig,
};
pub use tee::{HashFiles, IdBlockFiles, QuoteService, SimulatedTee, TeeConfig, TeePlatform};

/// The descriptor on which a VMM finds its end of the control socket.
pub const CONTROL_FD: std::os::fd::RawFd = 3;
