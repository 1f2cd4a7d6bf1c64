//! A virtual driver: it drives any device by its registers and its rings in guest memory, as a guest does.

mod driver;
mod hostile;
mod ring;

pub(crate) use driver::{Driver, NEEDS_RESET, register, run};
pub(crate) use ring::{Buffer, Ring, flags};

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{EventFd, Wiring};

/// Guest memory: rings at the bottom, buffers above.
pub(crate) const MEMORY: u64 = 32 << 20;
pub(crate) const RINGS: u64 = 0x1000;
pub(crate) const BUFFERS: u64 = 1 << 20;

/// What a device under test is connected to, with the interrupt's other end.
pub(crate) fn wiring() -> (Wiring, EventFd, Arc<GuestMemoryMmap>) {
    let size = usize::try_from(MEMORY).unwrap();
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap());
    let interrupt = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap();
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let ours = interrupt.try_clone().unwrap();
    (Wiring { memory: Arc::clone(&memory), confidential: None, interrupt, log }, ours, memory)
}
