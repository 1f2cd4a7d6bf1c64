//! What goes wrong in a running device.

use std::io;

/// What a guest did that its device can't go on with.
///
/// It ends the device, which then needs a reset (virtio 1.2, 2.1.1, DEVICE_NEEDS_RESET), and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum GuestFault {
    /// The rings are not what a driver may set up.
    #[error("queue {queue} is not usable: {reason}")]
    QueueSetup {
        /// Which queue.
        queue: usize,
        /// What is wrong with it.
        reason: QueueSetupError,
    },
    /// The available ring or the used ring can't be worked with.
    #[error("a ring can't be used")]
    Ring(#[source] virtio_queue::Error),
    /// A chain loops, ends nowhere, is longer than allowed, or has readable buffers behind writable ones.
    #[error("a descriptor chain is malformed")]
    MalformedChain,
    /// A buffer is outside guest memory.
    #[error("a buffer is not in guest memory")]
    BufferOutsideMemory,
    /// A ring or a buffer is in memory that is not shared with the host.
    #[error("{0:#x} is private memory of the guest's")]
    PrivateMemory(u64),
    /// A chain has no room for what its request needs.
    #[error("a descriptor chain of {available} bytes is shorter than the {needed} that its request needs")]
    ShortChain {
        /// What there is.
        available: usize,
        /// What there should be.
        needed: usize,
    },
    /// A vsock packet says that it is longer than its chain.
    #[error("a vsock packet claims {claimed} bytes of payload and has {present}")]
    VsockLength {
        /// The header's length.
        claimed: u32,
        /// The bytes behind the header.
        present: usize,
    },
}

/// What is wrong with a queue that a driver wants to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueSetupError {
    /// QueueReady was not set.
    #[error("it was not made ready")]
    NotReady,
    /// Zero, no power of two, or more than QueueNumMax.
    #[error("its size of {0} is not allowed")]
    Size(u32),
    /// An address that is not aligned as virtio 1.2, 2.7 asks for.
    #[error("a part at {0:#x} is not aligned")]
    Alignment(u64),
    /// A part is not wholly in guest memory.
    #[error("a part at {0:#x} is not in guest memory")]
    OutsideMemory(u64),
    /// A part is in memory that is not shared with the host.
    #[error("a part at {0:#x} is in private memory of the guest's")]
    PrivateMemory(u64),
    /// Two parts overlap.
    #[error("parts overlap at {0:#x}")]
    Overlap(u64),
}

/// Why a device stopped working.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The guest's doing.
    #[error(transparent)]
    Guest(#[from] GuestFault),
    /// The host's: out of descriptors or memory.
    #[error("the host could not serve the device")]
    Host(#[from] io::Error),
}
