//! Which addresses are memory.
//!
//! SECURITY: on a confidential machine the map decides which pages stage0 takes into use, each exactly once. A
//! host that could let ranges overlap would get a page validated twice and could swap its content.

use thiserror::Error;

use crate::layout;
use crate::range::AddressRange;

/// A map has at most this many ranges.
pub const MAX_RANGES: usize = 16;

/// Ranges of memory: ascending, apart, made of whole pages, outside of the gap for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryMap {
    ranges: [Option<AddressRange>; MAX_RANGES],
}

impl MemoryMap {
    /// A map from starts and lengths.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, MemoryMapError> {
        let mut map = Self { ranges: [None; MAX_RANGES] };
        let mut places = map.ranges.iter_mut();
        let mut end_before = 0;
        let mut first = None;
        for (start, len) in ranges {
            let range = AddressRange::new(start, len).ok_or(MemoryMapError::Wraps { start, len })?;
            check(range, end_before)?;
            first.get_or_insert(range);
            end_before = range.end();
            *places.next().ok_or(MemoryMapError::TooMany)? = Some(range);
        }
        match first {
            Some(first) if first.start() == 0 && first.end() >= layout::LEAST_LOW_MEMORY => Ok(map),
            _ => Err(MemoryMapError::NoLowMemory),
        }
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.ranges.iter().copied().flatten()
    }

    /// Whether all of `range` is memory, in one piece.
    #[must_use]
    pub fn contains(&self, range: AddressRange) -> bool {
        self.iter().any(|memory| memory.contains(range))
    }

    /// How many bytes of memory there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        // Ranges are apart and below the limit, so the sum is, too.
        self.iter().map(AddressRange::len).sum()
    }
}

fn check(range: AddressRange, end_before: u64) -> Result<(), MemoryMapError> {
    let (start, end) = (range.start(), range.end());
    if !range.is_page_aligned() {
        return Err(MemoryMapError::NotPages { start, end });
    }
    if end > layout::MEMORY_LIMIT {
        return Err(MemoryMapError::BeyondLimit { start, end });
    }
    if start < end_before {
        return Err(MemoryMapError::Overlaps { start, end_before });
    }
    if range.overlaps(layout::DEVICE_GAP) {
        return Err(MemoryMapError::InDeviceGap { start, end });
    }
    Ok(())
}

/// Why a memory map is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MemoryMapError {
    /// A range is empty or does not end within the address space.
    #[error("memory range of {len:#x} bytes at {start:#x} is empty or wraps around")]
    Wraps {
        /// Its first address.
        start: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A range does not start or end at a page.
    #[error("memory range {start:#x}..{end:#x} is not made of whole pages")]
    NotPages {
        /// Its first address.
        start: u64,
        /// The address behind it.
        end: u64,
    },
    /// A range lies where stage0 maps nothing.
    #[error("memory range {start:#x}..{end:#x} is beyond {:#x}", layout::MEMORY_LIMIT)]
    BeyondLimit {
        /// Its first address.
        start: u64,
        /// The address behind it.
        end: u64,
    },
    /// A range begins before the one before it has ended.
    #[error("memory range at {start:#x} begins below {end_before:#x}, where the one before it ends")]
    Overlaps {
        /// Its first address.
        start: u64,
        /// The end of the range before it.
        end_before: u64,
    },
    /// A range covers addresses of devices, of the shared window or of stage0.
    #[error("memory range {start:#x}..{end:#x} reaches into the gap for devices")]
    InDeviceGap {
        /// Its first address.
        start: u64,
        /// The address behind it.
        end: u64,
    },
    /// There are more ranges than [`MAX_RANGES`].
    #[error("more than {MAX_RANGES} memory ranges")]
    TooMany,
    /// The first 2 MiB are not memory.
    #[error("no memory from address 0 to {:#x}", layout::LEAST_LOW_MEMORY)]
    NoLowMemory,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[rstest]
    #[case::wraps(&[(0, 2 * MIB), (u64::MAX - 0xfff, 0x2000)], MemoryMapError::Wraps { start: u64::MAX - 0xfff, len: 0x2000 })]
    #[case::empty(&[(0, 2 * MIB), (4 * MIB, 0)], MemoryMapError::Wraps { start: 4 * MIB, len: 0 })]
    #[case::part_of_a_page(&[(0, 2 * MIB + 1)], MemoryMapError::NotPages { start: 0, end: 2 * MIB + 1 })]
    #[case::twice(&[(0, 4 * MIB), (0, 4 * MIB)], MemoryMapError::Overlaps { start: 0, end_before: 4 * MIB })]
    #[case::overlap(&[(0, 4 * MIB), (3 * MIB, 4 * MIB)], MemoryMapError::Overlaps { start: 3 * MIB, end_before: 4 * MIB })]
    #[case::descending(&[(8 * MIB, MIB), (0, 4 * MIB)], MemoryMapError::Overlaps { start: 0, end_before: 9 * MIB })]
    #[case::over_stage0(&[(0, 4 * MIB), (0xffff_f000, 0x1000)], MemoryMapError::InDeviceGap { start: 0xffff_f000, end: 1 << 32 })]
    #[case::over_the_window(&[(0, 0xc000_1000)], MemoryMapError::InDeviceGap { start: 0, end: 0xc000_1000 })]
    #[case::around_the_gap(&[(0, 2 << 32)], MemoryMapError::InDeviceGap { start: 0, end: 2 << 32 })]
    #[case::unmapped(&[(0, 4 * MIB), (1 << 39, MIB)], MemoryMapError::BeyondLimit { start: 1 << 39, end: (1 << 39) + MIB })]
    #[case::nothing(&[], MemoryMapError::NoLowMemory)]
    #[case::little(&[(0, MIB)], MemoryMapError::NoLowMemory)]
    #[case::not_from_zero(&[(0x1000, 4 * MIB)], MemoryMapError::NoLowMemory)]
    fn refuses_what_would_take_a_page_twice_or_hide_something(
        #[case] ranges: &[(u64, u64)],
        #[case] error: MemoryMapError,
    ) {
        assert_eq!(MemoryMap::new(ranges.iter().copied()), Err(error));
    }

    #[test]
    fn counts_its_ranges() {
        let ranges = |count: u64| (0..count).map(|index| (index * 4 * MIB, 2 * MIB));
        assert_eq!(MemoryMap::new(ranges(16)).map(|map| map.total()), Ok(32 * MIB));
        assert_eq!(MemoryMap::new(ranges(17)), Err(MemoryMapError::TooMany));
    }

    proptest! {
        #[test]
        fn an_accepted_map_lists_no_address_twice(
            others in prop::collection::vec((0..1u64 << 41, 0..1u64 << 34), 0..6),
        ) {
            let ranges = others.into_iter().map(|(start, len)| (start & !0xfff, len & !0xfff));
            if let Ok(map) = MemoryMap::new([(0, 16 * MIB)].into_iter().chain(ranges)) {
                let list: Vec<_> = map.iter().collect();
                for (index, range) in list.iter().enumerate() {
                    prop_assert!(!range.overlaps(layout::DEVICE_GAP));
                    prop_assert!(list[index + 1..].iter().all(|other| !range.overlaps(*other)));
                }
            }
        }
    }
}
