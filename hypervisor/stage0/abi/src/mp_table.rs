//! The MP table, by which a kernel without ACPI finds its CPUs and the IOAPIC (Intel MultiProcessor Specification
//! 1.4, section 4). stage0 makes it in a measured guest, the VMM in one that it starts directly.

use core::ops::Range;

use crate::layout;

const SPECIFICATION: u8 = 4;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
const BUS_ISA: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;

/// Types of interrupt, table 4-11.
const VECTORED: u8 = 0;
const NON_MASKABLE: u8 = 1;
const EXTERNAL: u8 = 3;

const POINTER: usize = 16;
const HEADER: usize = 44;

/// Writes the floating pointer and, right behind it, the table, for [`layout::MP_TABLE`]. `vcpus` have APIC ids from
/// zero; `pins` are those of the IOAPIC that devices use: one that is not listed costs the guest no register access.
///
/// `None` if there is too little room or a number that the table has no room for.
#[must_use]
pub fn write(place: &mut [u8], vcpus: u32, pins: Range<u32>) -> Option<()> {
    let (pointer, table) = place.split_at_mut_checked(POINTER)?;
    let address = u32::try_from(layout::MP_TABLE).ok()? + 16;
    // Length in paragraphs, then the checksum and five feature bytes: zero says that there is a table and that
    // the machine starts in virtual wire mode.
    put(pointer, 0, b"_MP_")?;
    put(pointer, 4, &address.to_le_bytes())?;
    put(pointer, 8, &[1, SPECIFICATION])?;
    set_checksum(pointer, 10)?;

    let mut entries = Entries { table, end: HEADER, count: 0 };
    entries.add_all(vcpus, pins)?;
    let Entries { table, end, count } = entries;
    put(table, 0, b"PCMP")?;
    put(table, 4, &u16::try_from(end).ok()?.to_le_bytes())?;
    put(table, 6, &[SPECIFICATION])?;
    put(table, 8, b"NACRE   NACRE VM    ")?;
    put(table, 34, &count.to_le_bytes())?;
    put(table, 36, &LOCAL_APIC.to_le_bytes())?;
    set_checksum(table.get_mut(..end)?, 7)
}

struct Entries<'a> {
    table: &'a mut [u8],
    end: usize,
    count: u16,
}

impl Entries<'_> {
    fn add_all(&mut self, vcpus: u32, pins: Range<u32>) -> Option<()> {
        const ENABLED: u8 = 1;
        const BOOTSTRAP: u8 = 2;
        let vcpus = u8::try_from(vcpus).ok()?;
        for id in 0..vcpus {
            let flags = if id == 0 { ENABLED | BOOTSTRAP } else { ENABLED };
            // Signature and feature flags are left out: the kernel asks CPUID.
            let mut processor = [0; 20];
            put(&mut processor, 0, &[0, id, LOCAL_APIC_VERSION, flags])?;
            self.add(&processor)?;
        }
        // An APIC id that no CPU has.
        let ioapic = vcpus;
        let [a, b, c, d] = IOAPIC.to_le_bytes();
        self.add(b"\x01\x00ISA   ")?;
        self.add(&[2, ioapic, IOAPIC_VERSION, 1, a, b, c, d])?;
        for pin in pins {
            let pin = u8::try_from(pin).ok()?;
            self.add(&[3, VECTORED, 0, 0, BUS_ISA, pin, ioapic, pin])?;
        }
        self.add(&[4, EXTERNAL, 0, 0, BUS_ISA, 0, 0, 0])?;
        self.add(&[4, NON_MASKABLE, 0, 0, BUS_ISA, 0, ALL_LOCAL_APICS, 1])
    }

    fn add(&mut self, entry: &[u8]) -> Option<()> {
        put(self.table, self.end, entry)?;
        self.end += entry.len();
        self.count += 1;
        Some(())
    }
}

fn put(target: &mut [u8], place: usize, bytes: &[u8]) -> Option<()> {
    target.get_mut(place..place.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

/// Sets the byte at `place` so that all bytes add up to zero.
fn set_checksum(bytes: &mut [u8], place: usize) -> Option<()> {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    *bytes.get_mut(place)? = sum.wrapping_neg();
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use rstest::rstest;

    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[rstest]
    #[case(1, 0)]
    #[case(4, 7)]
    #[case(254, 19)]
    fn both_structures_are_well_formed(#[case] vcpus: u32, #[case] interrupts: u32) {
        let mut place = vec![0; 0x1_0000];
        write(&mut place, vcpus, 5..5 + interrupts).unwrap();
        let (pointer, table) = place.split_at(16);
        assert_eq!((&pointer[..4], sum(pointer)), (&b"_MP_"[..], 0));
        assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()), 0xf_0010);

        let len = usize::from(u16::from_le_bytes([table[4], table[5]]));
        assert_eq!((&table[..4], sum(&table[..len])), (&b"PCMP"[..], 0));
        assert_eq!(u32::try_from(len).unwrap(), 44 + 20 * vcpus + 8 * (interrupts + 4));
        assert_eq!(u32::from(u16::from_le_bytes([table[34], table[35]])), vcpus + interrupts + 4);
        let flags: Vec<u8> = table[44..].chunks(20).take(vcpus as usize).map(|entry| entry[3]).collect();
        assert_eq!(flags.iter().map(|flags| usize::from(*flags)).sum::<usize>(), vcpus as usize + 2);
        assert_eq!(flags[0], 3);
    }

    #[test]
    fn too_little_room_is_not_overrun() {
        assert_eq!(write(&mut [0; 100], 4, 5..12), None);
        assert_eq!(write(&mut [0; 0x1_0000], 256, 5..12), None);
    }
}
