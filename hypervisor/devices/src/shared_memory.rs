//! Which memory of a confidential guest the host may touch.

use std::fmt;
use std::sync::Arc;

/// Tells shared memory from private.
///
/// SECURITY: private memory read through the host's mapping is no error, only other bytes, and what is written there is
/// lost. A device that goes on with it is a device that a guest, or a defect of ours, made blind. So each address is asked
/// about before it is used, and a private one ends the device until its driver resets it.
pub trait SharedMemory: fmt::Debug + Send + Sync {
    /// Whether all of these bytes are shared.
    fn is_shared(&self, address: u64, length: u64) -> bool;
}

/// What a device asks: nothing, for a guest without private memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard(pub Option<Arc<dyn SharedMemory>>);

impl Guard {
    /// Whether the device may touch all of these bytes.
    pub fn allows(&self, address: u64, length: u64) -> bool {
        self.0.as_ref().is_none_or(|memory| memory.is_shared(address, length))
    }
}
