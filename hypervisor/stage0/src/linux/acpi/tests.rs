use nacre_stage0_abi::{MemoryMap, PageBit};
use rstest::rstest;

use super::*;

const BASE: usize = 0xe_0000;

fn tables(platform: Platform, vcpus: u32, interrupts: u32) -> Vec<u8> {
    let memory = MemoryMap::new([(0, 4 << 20)]).unwrap();
    let page_bit = PageBit::Private(51);
    let parameters = Parameters { vcpus, page_bit, first_interrupt: 5, interrupts, memory };
    let mut place = vec![0; 0x1_0000];
    write(&mut place, platform, &parameters).unwrap();
    place
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

/// The table at an address that another table has at `at`, with a good length and checksum.
fn follow<'a>(tables: &'a [u8], from: &[u8], at: usize, signature: &[u8; 4]) -> &'a [u8] {
    let start = number(from, at) - BASE;
    assert_eq!(from[at + 4..at + 8], [0; 4]);
    let table = &tables[start..start + number(tables, start + 4)];
    assert_eq!(&table[..4], signature);
    assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    table
}

#[rstest]
#[case(Platform::Snp, 1, 0)]
#[case(Platform::Snp, 4, 19)]
#[case(Platform::Tdx, 254, 19)]
fn the_rsdp_leads_to_all_tables(#[case] platform: Platform, #[case] vcpus: u32, #[case] interrupts: u32) {
    let tables = tables(platform, vcpus, interrupts);
    assert_eq!(&tables[..8], b"RSD PTR ");
    let sum = |len: usize| tables[..len].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((sum(20), sum(36)), (0, 0));
    let xsdt = follow(&tables, &tables, 24, b"XSDT");
    assert_eq!(xsdt.len(), 36 + 16);
    let fadt = follow(&tables, xsdt, 36, b"FACP");
    assert_eq!((fadt.len(), number(fadt, 112) >> 20 & 1), (276, 1));
    let dsdt = follow(&tables, fadt, 140, b"DSDT");
    assert_eq!(dsdt.len(), 36 + 8 + 61 * interrupts as usize);

    let madt = follow(&tables, xsdt, 44, b"APIC");
    let tdx = platform == Platform::Tdx;
    assert_eq!(madt.len(), 44 + 8 * vcpus as usize + 12 + if tdx { 16 } else { 0 });
    let ids: Vec<u8> = madt[44..].chunks(8).take(vcpus as usize).map(|entry| entry[3]).collect();
    assert!(ids.iter().copied().eq((0..254).take(vcpus as usize)));
    if tdx {
        assert_eq!(madt[madt.len() - 16..], [0x10, 16, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn a_device_says_where_it_is_and_how_it_interrupts() {
    let tables = tables(Platform::Snp, 1, 19);
    let dsdt = &tables[DSDT + 36..];
    // Scope, its length 7 + 19 * 61 = 0x48e, and the last device.
    assert_eq!(dsdt[..8], *b"\x10\x4e\x48\\_SB_");
    let last = &dsdt[8 + 18 * 61..][..61];
    let expected = b"\x5b\x82\x3bV012\x08_HID\x0dLNRO0005\0\x08_UID\x0a\x12\x08_CRS\x11\x1a\x0a\x17\
        \x86\x09\x00\x01\x00\x20\x01\xd0\x00\x10\x00\x00\x89\x06\x00\x03\x01\x17\x00\x00\x00\x79\x00";
    assert_eq!(last, expected);
}

#[test]
fn too_little_room_is_not_overrun() {
    let memory = MemoryMap::new([(0, 4 << 20)]).unwrap();
    let page_bit = PageBit::Private(51);
    let parameters = Parameters { vcpus: 4, page_bit, first_interrupt: 5, interrupts: 19, memory };
    assert_eq!(write(&mut [0; 0x1020], Platform::Snp, &parameters), None);
    assert_eq!(write(&mut [0; 0x20], Platform::Snp, &parameters), None);
}
