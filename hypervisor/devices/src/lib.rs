//! The virtio-mmio transport and the devices behind it.
//!
//! A device has two halves. [`MmioDevice`] is its register file: vCPU threads read and write it when the guest
//! touches the device's window. [`Worker`] owns the queues once the driver has started the device and does the
//! I/O; [`EventLoop`] runs any number of workers on one thread. Between them are a channel, event descriptors
//! and a few atomics, so that no lock is held during I/O. Nothing here knows KVM: an interrupt is an
//! [`EventFd`] that the VMM binds with `KVM_IRQFD`, a doorbell is one that it binds with `KVM_IOEVENTFD`.
//!
//! SECURITY: the guest is the attacker. Registers are checked when the driver starts the device and are inert
//! afterwards; a descriptor chain is read once, into host memory, and checked there. Whatever the guest does wrong is a
//! [`GuestFault`], which stops the device and asks the driver for a reset.
//!
//! ```
//! use std::sync::Arc;
//! use nacre_devices::{EventFd, EventLoop, Wiring, rng};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?);
//! let interrupt = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
//! let log = slog::Logger::root(slog::Discard, slog::o!());
//! let device = rng::new(Wiring { memory, confidential: None, interrupt, log })?;
//!
//! let mut magic = [0; 4];
//! device.mmio.read(0, &mut magic);
//! assert_eq!(&magic, b"virt");
//!
//! let events = EventLoop::new(vec![device.worker])?;
//! let stop = events.stopper()?;
//! let thread = std::thread::spawn(move || events.run());
//! stop.write(1)?;
//! thread.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::indexing_slicing)]

pub mod block;
mod chain;
pub mod console;
mod event_loop;
mod fault;
pub mod net;
mod queue;
pub mod rng;
mod shared_memory;
mod transport;
pub mod vsock;
mod worker;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

pub use event_loop::EventLoop;
pub use fault::{GuestFault, QueueSetupError};
pub use shared_memory::SharedMemory;
pub use transport::{MMIO_SIZE, MmioDevice, NOTIFY_OFFSET};
pub use vmm_sys_util::eventfd::EventFd;
pub use worker::Worker;

/// What every device is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// The guest's memory.
    pub memory: Arc<GuestMemoryMmap>,
    /// For a confidential guest: what of the memory is shared with the host. The device then asks the driver for
    /// addresses of shared memory (virtio 1.2, 6, `VIRTIO_F_ACCESS_PLATFORM`), and touches nothing else.
    pub confidential: Option<Arc<dyn SharedMemory>>,
    /// Written to raise the device's interrupt. Non-blocking.
    pub interrupt: EventFd,
    /// Where faults of the guest and the host are reported, at a bounded rate.
    pub log: slog::Logger,
}

/// A device, not yet running.
#[derive(Debug)]
pub struct Device {
    /// Its registers, for the vCPU threads.
    pub mmio: MmioDevice,
    /// Its other half, for an [`EventLoop`].
    pub worker: Worker,
}
