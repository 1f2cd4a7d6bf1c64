//! The rules of a plan's pages.

use nacre_stage0_abi::{AddressRange, MemoryMap, PAGE_SIZE, layout};

use super::{PageRange, PlanError};

/// What a launch may cost. The security processor serves all guests of a host one after the other, at about a
/// millisecond a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes may be measured, without the CPU states.
    pub measured_bytes: u64,
    /// How many pages may be added, without the CPU states.
    pub page_commands: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { measured_bytes: 64 << 10, page_commands: 24 }
    }
}

/// Checks that pages are whole, apart, where memory is, and few enough.
pub(super) fn pages(pages: &[PageRange], memory: &MemoryMap, limits: Limits) -> Result<(), PlanError> {
    // stage0's image has memory of its own at the end of the gap.
    let image = AddressRange::new(layout::IMAGE_END - layout::IMAGE_LIMIT, layout::IMAGE_LIMIT);
    let mut before: Vec<(&'static str, AddressRange)> = Vec::new();
    for page in pages {
        let (name, gpa) = (page.name(), page.gpa());
        let len = u64::try_from(page.content().len()).unwrap_or(u64::MAX);
        let range = AddressRange::new(gpa, len).filter(|range| range.is_page_aligned());
        let range = range.ok_or(PlanError::NotPages { name })?;
        if !memory.contains(range) && !image.is_some_and(|image| image.contains(range)) {
            return Err(PlanError::NoMemory { name, gpa });
        }
        if let Some((first, _)) = before.iter().find(|(_, other)| other.overlaps(range)) {
            return Err(PlanError::Overlap { first, second: name });
        }
        before.push((name, range));
    }
    let (bytes, limit) = (measured_bytes(pages), limits.measured_bytes);
    if bytes > limit {
        return Err(PlanError::TooManyBytes { bytes, limit });
    }
    let (commands, limit) = (page_commands(pages), limits.page_commands);
    if commands > limit {
        return Err(PlanError::TooManyCommands { commands, limit });
    }
    Ok(())
}

pub(super) fn measured_bytes(pages: &[PageRange]) -> u64 {
    page_count(pages.iter().filter(|range| range.kind().is_measured())) * PAGE_SIZE
}

pub(super) fn page_commands(pages: &[PageRange]) -> u64 {
    page_count(pages.iter())
}

fn page_count<'a>(ranges: impl Iterator<Item = &'a PageRange>) -> u64 {
    ranges.map(|range| u64::try_from(range.pages().count()).unwrap_or(u64::MAX)).sum()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::PageKind;
    use super::*;

    fn range(name: &'static str, gpa: u64, kind: PageKind, pages: usize) -> PageRange {
        PageRange::new(name, gpa, kind, vec![0; pages * 4096])
    }

    fn check(ranges: &[PageRange]) -> Result<(), String> {
        let memory = MemoryMap::new([(0, 4 << 20)]).unwrap();
        pages(ranges, &memory, Limits::default()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::unaligned(range("a", 0x1001, PageKind::Normal, 1), "a is not made of whole pages")]
    #[case::part(PageRange::new("a", 0x1000, PageKind::Normal, vec![0; 100]), "a is not made of whole pages")]
    #[case::empty(range("a", 0x1000, PageKind::Normal, 0), "a is not made of whole pages")]
    #[case::wraps(range("a", 0xffff_ffff_ffff_f000, PageKind::Zero, 2), "a is not made of whole pages")]
    #[case::window(range("a", 0xc000_0000, PageKind::Zero, 1), "a at 0xc0000000 is where no memory is")]
    #[case::beyond(range("a", (4 << 20) - 0x1000, PageKind::Zero, 2), "a at 0x3ff000 is where no memory is")]
    #[case::behind(range("a", 1 << 32, PageKind::Zero, 1), "a at 0x100000000 is where no memory is")]
    #[case::overlap(range("a", 0x8000, PageKind::Zero, 2), "a overlaps b")]
    #[case::bytes(range("a", 0x1000, PageKind::Zero, 4), "69632 bytes to measure, at most 65536 are allowed")]
    #[case::commands(range("a", 0x1000, PageKind::Unmeasured, 8), "25 page commands, at most 24 are allowed")]
    fn refuses_what_breaks_a_rule(#[case] page: PageRange, #[case] error: &str) {
        let twelve_pages = range("stage0", 0xffff_4000, PageKind::Normal, 12);
        let one_page = range("b", 0x9000, PageKind::Normal, 1);
        let four_pages = range("c", 0x10_0000, PageKind::Secrets, 4);
        assert_eq!(check(&[twelve_pages, one_page, four_pages, page]), Err(error.to_owned()));
    }

    #[test]
    fn takes_exactly_what_is_allowed() {
        let most_bytes = range("a", 0x1000, PageKind::Zero, 16);
        let most_commands = range("b", 0x10_0000, PageKind::Unmeasured, 8);
        assert_eq!(check(&[most_bytes, most_commands]), Ok(()));
    }
}
