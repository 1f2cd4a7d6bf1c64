//! What stage0 needs of the processor and of memory.

use nacre_stage0_abi::AddressRange;
use nacre_stage0_abi::step::Step;

use crate::memory::Work;

/// The machine that stage0 runs on, as the measured entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// No confidential memory.
    Plain,
    /// An SEV-SNP guest.
    Snp,
    /// A TDX guest.
    Tdx,
}

/// The size of a page that is taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

impl PageSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => 4 << 10,
            Self::Large => 2 << 20,
        }
    }
}

/// How an attempt ended to take a page into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// The page is the guest's.
    Done,
    /// The host has it in pages of another size.
    OtherSize,
    /// The page was the guest's already.
    DoneBefore,
    /// The processor refused.
    Refused,
}

/// A CPU that can take memory into use.
pub trait Validate {
    /// Takes a page of private memory into use (SEV-SNP: PVALIDATE; TDX: TDG.MEM.PAGE.ACCEPT).
    fn validate(&mut self, page: u64, size: PageSize) -> Validation;
}

/// The processor and the memory.
pub trait Guest: Validate {
    /// Private memory that is in use.
    fn memory(&mut self, range: AddressRange) -> &mut [u8];

    /// Copies from the window that is shared with the host into private memory. The host may change the source at
    /// any time, so nothing is decided by it.
    fn copy_shared(&mut self, source: AddressRange, target: u64);

    /// Whether the processor says that the machine is this one, in a way that a host can't forge.
    fn is_platform(&mut self, platform: Platform) -> bool;

    /// TDX: the width of guest-physical addresses, of which the last bit is the shared bit, as the module says.
    fn address_width(&mut self) -> u32;

    /// TDX, and machines without confidential memory that simulate it: extends a runtime measurement register by the 48
    /// bytes at `digest`, an address below 4 GiB that 64 divides. Says whether the module did.
    fn extend(&mut self, register: u8, digest: u64) -> bool;

    /// Does the work, with the other `cpus - 1` CPUs where they are here.
    fn together(&mut self, work: &Work<'_>, cpus: u32);

    /// Uses the page tables at this address from now on.
    fn use_page_tables(&mut self, root: u64);

    /// Whether the processor has instructions for SHA-256. What is answered decides speed only.
    fn has_sha_instructions(&self) -> bool;

    /// Tells that a part of the work is done, where that is possible. For measurements only.
    fn did(&mut self, step: Step) {
        let _ = step;
    }
}
