//! What a CPU brings of conversions out of the guest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nacre_control::StopReason;
use nacre_stage0_abi::PAGE_SIZE;
use nix::errno::Errno;

use super::{ConversionError, PrivateMemory};

/// `KVM_HC_MAP_GPA_RANGE` (`include/uapi/linux/kvm_para.h`).
pub const MAP_GPA_RANGE: u64 = 12;
/// `KVM_MAP_GPA_RANGE_ENCRYPTED` of its third argument; bits 3:0 are the page size, a hint.
pub const ENCRYPTED: u64 = 1 << 4;
const PAGE_SIZE_HINT: u64 = 0xf;
/// `KVM_MEMORY_EXIT_FLAG_PRIVATE`
pub const FAULT_PRIVATE: u64 = 1 << 3;
/// A page that faults again and again although it was converted is a loop between the guest and us. A guest may convert
/// a page as often as it likes; it faults only between two conversions of the same kind.
const MOST_REPEATS: u32 = 1000;

/// A hypercall that KVM handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hypercall {
    /// Its number.
    pub number: u64,
    /// Its first three arguments.
    pub arguments: [u64; 3],
}

/// Conversions as the CPUs ask for them.
#[derive(Debug)]
pub struct Asked {
    memory: Arc<PrivateMemory>,
    /// For each address and kind, how often it faulted with no conversion by hypercall in between.
    faults: Mutex<HashMap<(u64, bool), u32>>,
}

impl Asked {
    /// Conversions of this memory.
    pub fn new(memory: Arc<PrivateMemory>) -> Self {
        Self { memory, faults: Mutex::new(HashMap::new()) }
    }

    /// Serves a hypercall. The result is for the guest: zero, or a negative error number; KVM takes `EINVAL` and `EAGAIN`.
    pub fn hypercall(&self, call: Hypercall) -> u64 {
        let [gpa, count, attributes] = call.arguments;
        if call.number != MAP_GPA_RANGE || attributes & !(ENCRYPTED | PAGE_SIZE_HINT) != 0 {
            return refused(Errno::EINVAL);
        }
        let result = self.memory.convert(gpa, count, attributes & ENCRYPTED != 0);
        // The page that faulted before may fault again now, for another reason.
        self.lock().clear();
        match result {
            Ok(()) => 0,
            Err(ConversionError::Kernel { errno: Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM, .. }) => {
                refused(Errno::EAGAIN)
            }
            Err(_) => refused(Errno::EINVAL),
        }
    }

    /// Serves a memory fault: the guest touched a page in the other way than it is. The page becomes what the guest takes
    /// it for.
    ///
    /// # Errors
    /// The machine can't go on.
    pub fn fault(&self, flags: u64, gpa: u64, size: u64) -> Result<(), StopReason> {
        let failed = |text: String| StopReason::Failed(text);
        if flags & !FAULT_PRIVATE != 0 {
            return Err(failed(format!(
                "the host has no memory for the guest's address {gpa:#x}, flags {flags:#x}"
            )));
        }
        let private = flags & FAULT_PRIVATE != 0;
        let first = gpa & !(PAGE_SIZE - 1);
        let pages = size.max(PAGE_SIZE).div_ceil(PAGE_SIZE);
        let repeats = {
            let mut faults = self.lock();
            // SECURITY: the guest chooses the addresses, but not how much we remember of them.
            if faults.len() > 4096 {
                faults.clear();
            }
            // A fault of the other kind is progress.
            faults.remove(&(first, !private));
            let repeats = faults.entry((first, private)).or_insert(0);
            *repeats += 1;
            *repeats
        };
        if repeats > MOST_REPEATS {
            return Err(failed(format!("the guest faulted {repeats} times at {gpa:#x} without getting on")));
        }
        self.memory
            .convert(first, pages, private)
            .map_err(|error| failed(format!("the guest touched {gpa:#x}: {}", crate::chain_text(&error))))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u64, bool), u32>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the guest gets it.
fn refused(errno: Errno) -> u64 {
    (-i64::from(errno as i32)).cast_unsigned()
}
