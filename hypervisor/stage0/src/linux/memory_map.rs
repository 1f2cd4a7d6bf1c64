//! The kernel's memory map: the measured one without what must stay as it is.

use nacre_stage0_abi::{MemoryMap, layout};

/// The kinds of `struct boot_e820_entry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Free memory.
    Usable = 1,
    /// Not to be touched without knowing what it is.
    Reserved = 2,
}

/// An entry of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub start: u64,
    pub len: u64,
    pub kind: Kind,
}

/// The first MiB, whatever the machine: it is always memory.
const FIRST_MIB: [Entry; 4] = [
    between(0, layout::HASHES_PAGE, Kind::Usable),
    // The launched pages, `boot_params`, and what it leads to.
    between(layout::HASHES_PAGE, layout::PAGE_TABLES, Kind::Reserved),
    between(layout::PAGE_TABLES, layout::LEGACY_HOLE.start(), Kind::Usable),
    between(layout::LEGACY_HOLE.start(), layout::LEGACY_HOLE.end(), Kind::Reserved),
];

const fn between(start: u64, end: u64, kind: Kind) -> Entry {
    Entry { start, len: end - start, kind }
}

/// The entries for a machine.
pub(super) fn entries(memory: &MemoryMap) -> impl Iterator<Item = Entry> + '_ {
    let rest = memory.iter().map(|range| {
        // The first range begins at zero and goes beyond the first MiB.
        let start = range.start().max(layout::LEGACY_HOLE.end());
        between(start, range.end(), Kind::Usable)
    });
    FIRST_MIB.into_iter().chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_all_memory_once_and_keeps_the_launched_pages() {
        let memory = MemoryMap::new([(0, 256 << 20), (1 << 32, 1 << 30)]).unwrap();
        let found: Vec<_> =
            entries(&memory).map(|entry| (entry.start, entry.start + entry.len, entry.kind)).collect();
        let expected = [
            (0, 0x1000, Kind::Usable),
            (0x1000, 0x9000, Kind::Reserved),
            (0x9000, 0x9_f000, Kind::Usable),
            (0x9_f000, 0x10_0000, Kind::Reserved),
            (0x10_0000, 256 << 20, Kind::Usable),
            (1 << 32, (1 << 32) + (1 << 30), Kind::Usable),
        ];
        assert_eq!(found, expected);
    }
}
