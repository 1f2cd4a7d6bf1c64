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
    /// Tables. A kernel maps them as private memory, unlike what is reserved.
    AcpiTables = 3,
    /// What ACPI's tables lead to.
    AcpiStorage = 4,
}

/// An entry of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub start: u64,
    pub len: u64,
    pub kind: Kind,
}

/// The first MiB, whatever the machine: it is always memory.
const FIRST_MIB: [Entry; 7] = [
    between(0, layout::HASHES_PAGE, Kind::Usable),
    // The launched pages, `boot_params`, what it leads to, and the tables of CPUs that wait for the kernel.
    between(layout::HASHES_PAGE, layout::MAILBOX_PAGE, Kind::Reserved),
    between(layout::MAILBOX_PAGE, layout::STAGE0_DATA.start(), Kind::AcpiStorage),
    between(layout::STAGE0_DATA.start(), layout::LEGACY_HOLE.start(), Kind::Usable),
    between(layout::LEGACY_HOLE.start(), layout::ACPI_TABLES, Kind::Reserved),
    between(layout::ACPI_TABLES, layout::MP_TABLE, Kind::AcpiTables),
    between(layout::MP_TABLE, layout::LEGACY_HOLE.end(), Kind::Reserved),
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
            (0x1000, 0xf000, Kind::Reserved),
            (0xf000, 0x1_0000, Kind::AcpiStorage),
            (0x1_0000, 0x9_f000, Kind::Usable),
            (0x9_f000, 0xe_0000, Kind::Reserved),
            (0xe_0000, 0xf_0000, Kind::AcpiTables),
            (0xf_0000, 0x10_0000, Kind::Reserved),
            (0x10_0000, 256 << 20, Kind::Usable),
            (1 << 32, (1 << 32) + (1 << 30), Kind::Usable),
        ];
        assert_eq!(found, expected);
    }
}
