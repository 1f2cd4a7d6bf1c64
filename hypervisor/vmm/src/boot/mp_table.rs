//! The MP table: which processors there are and where devices' interrupts arrive.
//!
//! Intel MultiProcessor Specification 1.4, section 4. The guest's kernel has no ACPI; this table is how it finds
//! its other CPUs and the IOAPIC.

use std::ops::Range;

use crate::layout;

const SPECIFICATION: u8 = 4;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
const BUS_ISA: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;

/// Types of interrupt, table 4-11.
const VECTORED: u8 = 0;
const NON_MASKABLE: u8 = 1;
const EXTERNAL: u8 = 3;

/// The bytes of the floating pointer and, right behind it, of the table, to be placed at [`layout::MP_TABLE`].
/// `interrupts` are the IOAPIC pins that devices use: a pin that is not listed costs the guest no register access.
pub fn build(vcpus: u8, interrupts: Range<u8>) -> Vec<u8> {
    let mut bytes = floating_pointer();
    bytes.extend(configuration_table(vcpus, interrupts));
    bytes
}

fn floating_pointer() -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    let table = layout::MP_TABLE + 16;
    pointer.extend(table.to_le_bytes().into_iter().take(4));
    // Length in paragraphs, then the checksum and five feature bytes: zero says that there is a table and that
    // the machine starts in virtual wire mode.
    pointer.extend([1, SPECIFICATION, 0, 0, 0, 0, 0, 0]);
    with_checksum(pointer, 10)
}

fn configuration_table(vcpus: u8, interrupts: Range<u8>) -> Vec<u8> {
    // An APIC id that no CPU has.
    let ioapic_id = vcpus;
    let mut entries: Vec<Vec<u8>> = (0..vcpus).map(processor).collect();
    entries.push([&[1, BUS_ISA][..], b"ISA   "].concat());
    entries.push([&[2, ioapic_id, IOAPIC_VERSION, 1][..], &layout::IOAPIC.to_le_bytes()].concat());
    entries.extend(interrupts.map(|pin| vec![3, VECTORED, 0, 0, BUS_ISA, pin, ioapic_id, pin]));
    entries.push(vec![4, EXTERNAL, 0, 0, BUS_ISA, 0, 0, 0]);
    entries.push(vec![4, NON_MASKABLE, 0, 0, BUS_ISA, 0, ALL_LOCAL_APICS, 1]);

    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let body = entries.concat();
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut table = b"PCMP".to_vec();
    table.extend(length.to_le_bytes());
    table.extend([SPECIFICATION, 0]);
    table.extend(b"NACRE   ");
    table.extend(b"NACRE VM    ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(layout::LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(body);
    with_checksum(table, 7)
}

const HEADER: usize = 44;

fn processor(id: u8) -> Vec<u8> {
    const ENABLED: u8 = 1;
    const BOOTSTRAP: u8 = 2;
    let flags = if id == 0 { ENABLED | BOOTSTRAP } else { ENABLED };
    let mut entry = vec![0, id, LOCAL_APIC_VERSION, flags];
    // Signature and feature flags: the kernel asks CPUID.
    entry.extend([0; 16]);
    entry
}

/// Sets the byte at `place` so that all bytes add up to zero.
fn with_checksum(mut bytes: Vec<u8>, place: usize) -> Vec<u8> {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(byte) = bytes.get_mut(place) {
        *byte = sum.wrapping_neg();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[rstest]
    #[case(1, 0)]
    #[case(2, 5)]
    #[case(64, 19)]
    fn both_structures_are_well_formed(#[case] vcpus: u8, #[case] devices: u8) {
        let bytes = build(vcpus, 5..5 + devices);
        let (pointer, table) = bytes.split_at(16);
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()), 0xf_0010);
        assert_eq!(sum(pointer), 0);

        assert_eq!(&table[..4], b"PCMP");
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        assert_eq!(sum(table), 0);
        let entries = u16::from_le_bytes([table[34], table[35]]);
        assert_eq!(entries, u16::from(vcpus) + 1 + 1 + u16::from(devices) + 2);
        assert_eq!(table.len(), 44 + 20 * usize::from(vcpus) + 8 * usize::from(entries - u16::from(vcpus)));
    }

    #[test]
    fn only_the_first_processor_is_the_bootstrap_one() {
        let bytes = build(3, 5..6);
        let flags: Vec<u8> = bytes[16 + 44..].chunks(20).take(3).map(|entry| entry[3]).collect();
        assert_eq!(flags, [3, 1, 1]);
    }
}
