//! Private memory: which pages of a guest are its own, and how they become the host's to see and back.
//!
//! One value owns the answer, [`PrivateMemory`]. A conversion that the guest asks for is checked against the machine's RAM,
//! made in KVM, written down, and then the other side's memory is given back: without that, each page that was converted
//! once would cost the host two.
//!
//! SECURITY: the guest chooses every address and size here. What it asks for outside of its RAM is refused with an error
//! number that it sees; it never ends the VMM.

mod conversions;
mod kernel;
mod launch;
mod map;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use nacre_devices::SharedMemory;
use nacre_stage0_abi::{AddressRange, PAGE_SIZE};
use nix::errno::Errno;

pub use conversions::{Asked, ENCRYPTED, FAULT_PRIVATE, Hypercall, MAP_GPA_RANGE};
pub use kernel::{
    Capability, KvmMemory, MemoryKernel, Region, add_region, add_regions, enable, errno, exit_on_conversions,
    missing, offers,
};
pub use launch::{Initialised, MOST_RETRIES, Measured, Transient, WithCpus, WithMemory, list, retry};
pub use map::PrivateMap;

use crate::unsafe_private;

/// The kernel's part of a conversion.
pub trait Attributes: Send + Sync {
    /// Says that a range of guest addresses is private, or that it is shared (`KVM_SET_MEMORY_ATTRIBUTES`).
    ///
    /// # Errors
    /// The kernel's.
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno>;
}

/// A range of RAM with its two sides.
#[derive(Debug)]
pub struct PrivateRegion {
    /// The guest's addresses.
    pub range: AddressRange,
    /// Where the shared side is in this process.
    pub shared_address: u64,
    /// The private side, a guest_memfd that begins with the range.
    pub private: OwnedFd,
}

/// The RAM of a guest with private memory.
pub struct PrivateMemory {
    regions: Vec<PrivateRegion>,
    /// Which pages are private. Held for writing during a conversion, so that no device touches a page between the
    /// kernel's change and ours.
    map: RwLock<PrivateMap>,
    attributes: Box<dyn Attributes>,
}

impl fmt::Debug for PrivateMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PrivateMemory").field("regions", &self.regions).finish_non_exhaustive()
    }
}

/// Why a conversion is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Not whole pages, none, or beyond the end of all addresses.
    #[error("{count} pages from {gpa:#x} are no range of pages")]
    Range {
        /// The first address that was asked for.
        gpa: u64,
        /// How many pages were asked for.
        count: u64,
    },
    /// Not wholly in RAM.
    #[error("{:#x}..{:#x} is not wholly the guest's memory", .0.start(), .0.end())]
    NotMemory(AddressRange),
    /// The kernel can't.
    #[error("the kernel refused to convert {:#x}..{:#x}", .range.start(), .range.end())]
    Kernel {
        /// What was asked for.
        range: AddressRange,
        /// The kernel's reason.
        #[source]
        errno: Errno,
    },
    /// The pages were converted and the other side's memory could not be given back.
    #[error("memory of {:#x}..{:#x} could not be given back to the host", .range.start(), .range.end())]
    Release {
        /// What was asked for.
        range: AddressRange,
        /// The kernel's reason.
        #[source]
        errno: Errno,
    },
}

impl PrivateMemory {
    /// The memory of a machine whose `regions` are wholly private, as the kernel knows already.
    pub fn new(regions: Vec<PrivateRegion>, attributes: Box<dyn Attributes>) -> Self {
        let mut map = PrivateMap::default();
        for region in &regions {
            map.set(region.range, true);
        }
        Self { regions, map: RwLock::new(map), attributes }
    }

    /// Converts `count` pages from `gpa` on.
    ///
    /// # Errors
    /// See [`ConversionError`].
    pub fn convert(&self, gpa: u64, count: u64, private: bool) -> Result<(), ConversionError> {
        let range = count
            .checked_mul(PAGE_SIZE)
            .and_then(|len| AddressRange::new(gpa, len))
            .filter(|range| range.is_page_aligned())
            .ok_or(ConversionError::Range { gpa, count })?;
        // A guest that wants two ranges of RAM at once, over a gap, gets an error.
        let region = self.regions.iter().find(|region| region.range.contains(range));
        let region = region.ok_or(ConversionError::NotMemory(range))?;
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if private {
            // From here on devices keep off, whatever the kernel says.
            map.set(range, true);
        }
        let changed = self.attributes.set_private(range, private);
        changed.map_err(|errno| ConversionError::Kernel { range, errno })?;
        if !private {
            map.set(range, false);
        }
        let offset = range.start() - region.range.start();
        let released = if private {
            unsafe_private::release_shared(region.shared_address + offset, range.len())
        } else {
            unsafe_private::release_private(&region.private, offset, range.len())
        };
        released.map_err(|errno| ConversionError::Release { range, errno })
    }

    /// Whether any page of the range is private. What is outside of RAM is not.
    pub fn is_private(&self, range: AddressRange) -> bool {
        self.map.read().unwrap_or_else(PoisonError::into_inner).any(range)
    }

    /// The ranges of RAM.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.regions.iter().map(|region| region.range)
    }
}

impl SharedMemory for PrivateMemory {
    fn is_shared(&self, address: u64, length: u64) -> bool {
        // An empty buffer is nowhere.
        AddressRange::new(address, length).is_none_or(|range| !self.is_private(range))
    }
}

/// The memory of a machine that is being made. Until it is there, nothing is shared.
#[derive(Debug, Default)]
pub struct Awaited(OnceLock<Arc<PrivateMemory>>);

impl Awaited {
    /// It is there. A second one changes nothing.
    pub fn arrived(&self, memory: Arc<PrivateMemory>) {
        let _ = self.0.set(memory);
    }
}

impl SharedMemory for Awaited {
    fn is_shared(&self, address: u64, length: u64) -> bool {
        self.0.get().is_some_and(|memory| memory.is_shared(address, length))
    }
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
