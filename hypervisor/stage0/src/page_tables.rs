//! The page tables that stage0 and the kernel's first instructions use: everything at its own address.
//!
//! The entry made the few entries that it needs; they are written again as they are.

use nacre_stage0_abi::{AddressRange, PAGE_SIZE, PageBit, Parameters, layout};

use crate::guest::Guest;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// Set beforehand, so that the processor has nothing to write back.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const TABLE: u64 = PRESENT | WRITABLE | 1 << 5;
const PAGE: u64 = PRESENT | WRITABLE | ACCESSED_DIRTY | LARGE;

const MIB_2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const ENTRIES: u64 = 512;
/// The first two tables lead to the page directories of the first 4 GiB.
const POINTERS: u64 = layout::PAGE_TABLES + PAGE_SIZE;
const DIRECTORIES: u64 = layout::PAGE_TABLES + 2 * PAGE_SIZE;
/// The piece that has stage0's image at its end.
const IMAGE: AddressRange = match AddressRange::new(layout::IMAGE_END - MIB_2, MIB_2) {
    Some(range) => range,
    None => layout::DEVICE_GAP,
};

/// Writes the tables and returns what belongs into CR3.
pub fn build(guest: &mut impl Guest, parameters: &Parameters) -> u64 {
    let bits = Bits::of(parameters.page_bit);
    let Some(range) = AddressRange::new(layout::PAGE_TABLES, layout::PAGE_TABLE_PAGES * PAGE_SIZE) else {
        return 0;
    };
    let entries = (0..layout::PAGE_TABLE_PAGES * ENTRIES).map(|index| entry(index, parameters, bits));
    let (places, _) = guest.memory(range).as_chunks_mut::<8>();
    for (place, entry) in places.iter_mut().zip(entries) {
        *place = entry.to_le_bytes();
    }
    layout::PAGE_TABLES | bits.private
}

/// What makes an entry's page private, and what makes it shared.
#[derive(Clone, Copy)]
struct Bits {
    private: u64,
    shared: u64,
}

impl Bits {
    const fn of(bit: PageBit) -> Self {
        match bit {
            PageBit::None => Self { private: 0, shared: 0 },
            PageBit::Private(bit) => Self { private: 1 << bit, shared: 0 },
            PageBit::Shared(bit) => Self { private: 0, shared: 1 << bit },
        }
    }
}

/// The entry with this number, counted through all tables.
fn entry(index: u64, parameters: &Parameters, bits: Bits) -> u64 {
    let Bits { private, .. } = bits;
    let (table, index) = (index / ENTRIES, index % ENTRIES);
    match table {
        0 if index == 0 => POINTERS | TABLE | private,
        0 => 0,
        1 if index < 4 => (DIRECTORIES + index * PAGE_SIZE) | TABLE | private,
        // Only PVALIDATE, which takes virtual addresses, needs more than the first 4 GiB, and every processor that does so has such large pages.
        1 if private != 0 && is_memory(index * GIB, GIB, parameters) => (index * GIB) | PAGE | private,
        1 => 0,
        _ => directory_entry(((table - 2) * ENTRIES + index) * MIB_2, parameters, bits),
    }
}

/// The entry for 2 MiB at an address below 4 GiB.
fn directory_entry(address: u64, parameters: &Parameters, bits: Bits) -> u64 {
    let Some(range) = AddressRange::new(address, MIB_2) else { return 0 };
    if layout::SHARED_WINDOW.contains(range) {
        address | PAGE | bits.shared
    } else if range == IMAGE || is_memory(address, MIB_2, parameters) {
        address | PAGE | bits.private
    } else {
        0
    }
}

fn is_memory(address: u64, len: u64, parameters: &Parameters) -> bool {
    let range = AddressRange::new(address, len);
    range.is_some_and(|range| parameters.memory.iter().any(|memory| memory.overlaps(range)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nacre_stage0_abi::MemoryMap;

    use super::*;

    fn parameters(page_bit: PageBit) -> Parameters {
        let memory = MemoryMap::new([(0, 3 * MIB_2), (1 << 32, GIB + 4096)]).unwrap();
        Parameters { vcpus: 1, page_bit, first_interrupt: 5, interrupts: 1, memory }
    }

    fn entries(parameters: &Parameters) -> BTreeMap<u64, u64> {
        let bits = Bits::of(parameters.page_bit);
        let all = (0..6 * ENTRIES).map(|index| (index, entry(index, parameters, bits)));
        all.filter(|(_, entry)| *entry != 0).collect()
    }

    #[test]
    fn memory_and_tables_are_private_and_the_window_is_shared() {
        let bit = 1 << 51;
        let found = entries(&parameters(PageBit::Private(51)));
        let mut expected = BTreeMap::from([
            (0, 0xa023 | bit),
            (512, 0xb023 | bit),
            (513, 0xc023 | bit),
            (514, 0xd023 | bit),
            (515, 0xe023 | bit),
            (516, 0x1_0000_00e3 | bit),
            (517, 0x1_4000_00e3 | bit),
            (1024, 0xe3 | bit),
            (1025, 0x20_00e3 | bit),
            (1026, 0x40_00e3 | bit),
            (6 * 512 - 1, 0xffe0_00e3 | bit),
        ]);
        for index in 0..128 {
            expected.insert(5 * 512 + index, 0xc000_00e3 + index * MIB_2);
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn on_tdx_only_the_window_has_the_shared_bit() {
        let bit = 1 << 47;
        let found = entries(&parameters(PageBit::Shared(47)));
        for (index, entry) in found {
            let window = (5 * 512..5 * 512 + 128).contains(&index);
            assert_eq!(entry & bit != 0, window, "{index}: {entry:#x}");
            assert!(entry & !bit < 1 << 32, "{index}: {entry:#x}");
        }
    }

    #[test]
    fn without_encryption_only_the_first_four_gib_are_mapped() {
        let found = entries(&parameters(PageBit::None));
        assert_eq!(found.get(&0), Some(&0xa023));
        assert_eq!(found.get(&516), None);
        assert!(found.values().all(|entry| *entry < 1 << 32));
    }
}
