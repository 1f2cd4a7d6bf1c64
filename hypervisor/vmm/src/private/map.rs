//! A set of pages as ranges.

use std::collections::BTreeMap;

use nacre_stage0_abi::AddressRange;

/// The private pages: ranges that neither overlap nor touch, by their start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrivateMap {
    ends: BTreeMap<u64, u64>,
}

impl PrivateMap {
    /// Makes a range private, or shared.
    pub fn set(&mut self, range: AddressRange, private: bool) {
        let (mut start, mut end) = (range.start(), range.end());
        // Those that overlap or touch, from the last one that begins before the end.
        while let Some((&other_start, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ends.remove(&other_start);
            if private {
                start = start.min(other_start);
                end = end.max(other_end);
            } else {
                self.keep(other_start, range.start().min(other_end));
                self.keep(range.end().max(other_start), other_end);
                if other_start <= range.start() {
                    break;
                }
                // What was kept behind the range begins at or behind its end; go on before it.
                end = other_start - 1;
            }
        }
        if private {
            self.ends.insert(start, end);
        }
    }

    fn keep(&mut self, start: u64, end: u64) {
        if start < end {
            self.ends.insert(start, end);
        }
    }

    /// Whether any page of the range is private.
    #[must_use]
    pub fn any(&self, range: AddressRange) -> bool {
        self.ends.range(..range.end()).next_back().is_some_and(|(_, end)| *end > range.start())
    }

    /// How many ranges there are.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 64;

    fn pages(start: u64, len: u64) -> AddressRange {
        AddressRange::new(start << 12, len << 12).unwrap()
    }

    proptest! {
        #[test]
        fn is_the_same_as_a_list_of_pages(
            changes in prop::collection::vec((0..PAGES, 1..PAGES, any::<bool>()), 0..60),
        ) {
            let (mut map, mut list) = (PrivateMap::default(), vec![false; 2 * 64]);
            for (start, len, private) in changes {
                map.set(pages(start, len), private);
                for page in start..start + len {
                    list[usize::try_from(page).unwrap()] = private;
                }
                for (page, private) in (0..).zip(&list) {
                    prop_assert_eq!(map.any(pages(page, 1)), *private, "page {}", page);
                }
                let runs = list.chunk_by(|one, next| one == next).filter(|run| run[0]).count();
                prop_assert_eq!(map.ranges(), runs);
            }
        }
    }

    #[test]
    fn a_range_with_a_single_private_page_is_not_shared() {
        let mut map = PrivateMap::default();
        map.set(pages(5, 1), true);
        assert!(map.any(pages(0, 64)) && map.any(pages(5, 1)));
        assert!(!map.any(pages(0, 5)) && !map.any(pages(6, 58)));
    }
}
