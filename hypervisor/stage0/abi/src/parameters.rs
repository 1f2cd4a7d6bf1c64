//! The parameters page: what stage0 must know of the machine.

use thiserror::Error;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::PAGE_SIZE;
use crate::memory_map::{MAX_RANGES, MemoryMap, MemoryMapError};

/// "NACREPAR".
const MAGIC: u64 = u64::from_le_bytes(*b"NACREPAR");
const VERSION: u32 = 1;
/// What the interrupt controllers' tables can name with an eight-bit APIC id, of which the last means "all" and
/// one is the IOAPIC's.
pub const MAX_VCPUS: u32 = 254;
/// The pins of an IOAPIC.
const PINS: u32 = 24;
/// Bits that mean something beside the address are among the physical address bits, above what stage0 maps.
const PAGE_BITS: core::ops::RangeInclusive<u32> = 39..=51;

/// How a page table's entry says whether a page is private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageBit {
    /// There is no confidential memory.
    None,
    /// Pages with this bit are private: SEV-SNP's encryption bit, 39 to 51.
    Private(u32),
    /// Pages with this bit are shared: a TDX guest's, 39 to 51.
    Shared(u32),
}

/// What stage0 must know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// How many vCPUs there are, 1 to [`MAX_VCPUS`]; their APIC ids count from zero.
    pub vcpus: u32,
    /// How a page is marked as private or shared.
    pub page_bit: PageBit,
    /// The first IOAPIC pin of a device.
    pub first_interrupt: u32,
    /// How many IOAPIC pins belong to devices.
    pub interrupts: u32,
    /// Which addresses are memory.
    pub memory: MemoryMap,
}

/// The page as it is in memory.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ParametersPage {
    magic: u64,
    version: u32,
    vcpus: u32,
    /// Zero: none.
    encryption_bit: u32,
    first_interrupt: u32,
    interrupts: u32,
    range_count: u32,
    ranges: [MemoryRange; MAX_RANGES],
    /// Zero: none.
    shared_bit: u32,
    reserved: [u8; 3804],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct MemoryRange {
    start: u64,
    len: u64,
}

const _: () = {
    assert!(size_of::<ParametersPage>() as u64 == PAGE_SIZE);
    // stage0's first instructions read this one from assembly.
    assert!(core::mem::offset_of!(ParametersPage, encryption_bit) == ParametersPage::ENCRYPTION_BIT_OFFSET);
    assert!(core::mem::offset_of!(ParametersPage, ranges) == 32);
};

impl ParametersPage {
    /// Where in the page the encryption bit is.
    pub const ENCRYPTION_BIT_OFFSET: usize = 16;
}

impl Parameters {
    /// The page that says this.
    #[must_use]
    pub fn to_page(&self) -> ParametersPage {
        let (encryption_bit, shared_bit) = match self.page_bit {
            PageBit::None => (0, 0),
            PageBit::Private(bit) => (bit, 0),
            PageBit::Shared(bit) => (0, bit),
        };
        let mut page = ParametersPage {
            magic: MAGIC,
            version: VERSION,
            vcpus: self.vcpus,
            encryption_bit,
            shared_bit,
            first_interrupt: self.first_interrupt,
            interrupts: self.interrupts,
            ..ParametersPage::new_zeroed()
        };
        for (place, range) in page.ranges.iter_mut().zip(self.memory.iter()) {
            *place = MemoryRange { start: range.start(), len: range.len() };
            page.range_count += 1;
        }
        page
    }

    /// Reads and checks a page.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(page: &ParametersPage) -> Result<Self, ParametersError> {
        if page.magic != MAGIC || page.version != VERSION {
            return Err(ParametersError::NotParameters);
        }
        if !(1..=MAX_VCPUS).contains(&page.vcpus) {
            return Err(ParametersError::Vcpus(page.vcpus));
        }
        let page_bit = match (page.encryption_bit, page.shared_bit) {
            (0, 0) => PageBit::None,
            (bit, 0) if PAGE_BITS.contains(&bit) => PageBit::Private(bit),
            (0, bit) if PAGE_BITS.contains(&bit) => PageBit::Shared(bit),
            (private, shared) => return Err(ParametersError::PageBit { private, shared }),
        };
        let (first, count) = (page.first_interrupt, page.interrupts);
        if first.checked_add(count).is_none_or(|end| end > PINS) {
            return Err(ParametersError::Interrupts { first, count });
        }
        let used = usize::try_from(page.range_count).unwrap_or(usize::MAX);
        let (ranges, unused) = page.ranges.split_at_checked(used).ok_or(MemoryMapError::TooMany)?;
        let nothing = MemoryRange { start: 0, len: 0 };
        if page.reserved.iter().any(|byte| *byte != 0) || unused.iter().any(|range| *range != nothing) {
            return Err(ParametersError::Reserved);
        }
        let memory = MemoryMap::new(ranges.iter().map(|range| (range.start, range.len)))?;
        Ok(Self { vcpus: page.vcpus, page_bit, first_interrupt: first, interrupts: count, memory })
    }
}

/// Why a parameters page is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParametersError {
    /// The page does not begin like one, or is of another version.
    #[error("no parameters page of version {VERSION}")]
    NotParameters,
    /// The number of vCPUs is out of range.
    #[error("{0} vCPUs, 1 to {MAX_VCPUS} are possible")]
    Vcpus(u32),
    /// No page table has its encryption bit or its shared bit there, or has both.
    #[error("encryption bit {private} and shared bit {shared}, one of {PAGE_BITS:?} or none is possible")]
    PageBit {
        /// The encryption bit, or zero.
        private: u32,
        /// The shared bit, or zero.
        shared: u32,
    },
    /// Interrupts that the IOAPIC has no pins for.
    #[error("{count} interrupts from {first}, the IOAPIC has {PINS} pins")]
    Interrupts {
        /// The first pin.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Bytes without a meaning are not zero.
    #[error("unused bytes of the parameters page are not zero")]
    Reserved,
    /// The memory map breaks a rule.
    #[error(transparent)]
    Memory(#[from] MemoryMapError),
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parameters() -> Parameters {
        let memory = MemoryMap::new([(0, 0x1000_0000), (0x1_0000_0000, 0x4000_0000)]).unwrap();
        Parameters { vcpus: 4, page_bit: PageBit::Private(51), first_interrupt: 5, interrupts: 7, memory }
    }

    #[test]
    fn a_page_says_what_it_was_made_from() {
        assert_eq!(Parameters::parse(&parameters().to_page()), Ok(parameters()));
        for page_bit in [PageBit::None, PageBit::Shared(47)] {
            let other = Parameters { page_bit, ..parameters() };
            assert_eq!(Parameters::parse(&other.to_page()), Ok(other));
        }
    }

    #[rstest]
    #[case::magic(|page: &mut ParametersPage| page.magic += 1, ParametersError::NotParameters)]
    #[case::version(|page: &mut ParametersPage| page.version += 1, ParametersError::NotParameters)]
    #[case::no_vcpu(|page: &mut ParametersPage| page.vcpus = 0, ParametersError::Vcpus(0))]
    #[case::many_vcpus(|page: &mut ParametersPage| page.vcpus = 255, ParametersError::Vcpus(255))]
    #[case::bit_in_use(|page: &mut ParametersPage| page.encryption_bit = 38, ParametersError::PageBit { private: 38, shared: 0 })]
    #[case::no_such_bit(|page: &mut ParametersPage| page.encryption_bit = 52, ParametersError::PageBit { private: 52, shared: 0 })]
    #[case::two_bits(|page: &mut ParametersPage| page.shared_bit = 47, ParametersError::PageBit { private: 51, shared: 47 })]
    #[case::pins(|page: &mut ParametersPage| page.interrupts = 20, ParametersError::Interrupts { first: 5, count: 20 })]
    #[case::pins_wrap(|page: &mut ParametersPage| page.interrupts = u32::MAX, ParametersError::Interrupts { first: 5, count: u32::MAX })]
    #[case::ranges(|page: &mut ParametersPage| page.range_count = 17, ParametersError::Memory(MemoryMapError::TooMany))]
    #[case::hidden_range(|page: &mut ParametersPage| page.range_count = 1, ParametersError::Reserved)]
    #[case::trailing(|page: &mut ParametersPage| page.reserved[3803] = 1, ParametersError::Reserved)]
    #[case::overlap(|page: &mut ParametersPage| page.ranges[1].start = 0x1000, ParametersError::Memory(MemoryMapError::Overlaps { start: 0x1000, end_before: 0x1000_0000 }))]
    fn refuses_a_page_that_breaks_a_rule(
        #[case] change: fn(&mut ParametersPage),
        #[case] error: ParametersError,
    ) {
        let mut page = parameters().to_page();
        change(&mut page);
        assert_eq!(Parameters::parse(&page), Err(error));
    }
}
