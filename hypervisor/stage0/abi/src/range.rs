//! A range of guest-physical addresses that can't wrap around.

use crate::PAGE_SIZE;

/// Addresses from `start` up to but not including `end`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    start: u64,
    end: u64,
}

impl AddressRange {
    /// The range of `len` bytes from `start`; `None` where it is empty or wraps around.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) if len > 0 => Some(Self { start, end }),
            _ => None,
        }
    }

    /// The range between two addresses that the compiler knows.
    pub(crate) const fn between(start: u64, end: u64) -> Self {
        assert!(start < end);
        Self { start, end }
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The address behind the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes; never zero.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether both have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether all of `other` lies in this range.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether it starts and ends at a page.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.start.is_multiple_of(PAGE_SIZE) && self.end.is_multiple_of(PAGE_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::AddressRange;

    #[rstest]
    #[case::empty(0x1000, 0, None)]
    #[case::wraps(u64::MAX, 2, None)]
    #[case::to_the_last_but_one_address(u64::MAX - 1, 1, Some(u64::MAX))]
    #[case::ordinary(0x1000, 0x1000, Some(0x2000))]
    fn has_an_end_or_is_refused(#[case] start: u64, #[case] len: u64, #[case] end: Option<u64>) {
        assert_eq!(AddressRange::new(start, len).map(AddressRange::end), end);
    }

    #[rstest]
    #[case::before((0, 0x1000), false)]
    #[case::first_byte((0, 0x1001), true)]
    #[case::last_byte((0x1fff, 1), true)]
    #[case::after((0x2000, 1), false)]
    #[case::around((0, 0x9000), true)]
    fn overlap_takes_a_common_address(#[case] other: (u64, u64), #[case] overlaps: bool) {
        let range = AddressRange::new(0x1000, 0x1000).unwrap();
        let other = AddressRange::new(other.0, other.1).unwrap();
        assert_eq!((range.overlaps(other), other.overlaps(range)), (overlaps, overlaps));
    }
}
