use rstest::rstest;
use sha2::{Digest, Sha384};

use super::*;
use crate::cpu_state::GeneralRegisters;
use crate::digest::test_vectors::{MILAN, qemu_reset, vmsa32, vmsa64};

fn hash(cpu: &CpuState) -> String {
    Sha384::digest(Vmsa::from(cpu).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes that `sev-snp-measure` makes of the page that QEMU's reset state leads to.
#[rstest]
#[case::epyc_v4(
    0x0080_0f12,
    "77920c4c629ff47e90c0e174fc1ad0eb6fa664f88cd4739488058a8c6cb1a77b3856f55378e9518d0da99452d51c553a"
)]
#[case::milan(
    MILAN,
    "728af287318db5f3fc4d2357a969483c4225956dc555b514a78d64ee372112d13b3dca8afd02cdbd1c55697d8ce087f5"
)]
#[case::genoa(
    0x00a1_0f10,
    "7d39672d1b8a3e38353a8eef23af9a14a850be7b9c80bd29898aff5cd2386719e5ce72ad660a022def56b15e5e0f899e"
)]
#[case::turin(
    0x00b0_0f00,
    "49ddacf0393b6d9401ac505250ec615e923bc580ff6ce0a0b4c5f2e261b0a972cd4facec381e17ad503ce64f4de8a83e"
)]
fn the_reset_state_has_the_known_hash_for_each_processor(#[case] signature: u64, #[case] expected: &str) {
    assert_eq!(hash(&qemu_reset(signature)), expected);
}

#[test]
fn states_that_a_vmm_chose_have_the_known_hashes() {
    assert_eq!(
        hash(&vmsa64()),
        "f6d621e804a33973d2305bc9af552b29f7a62ad652932aaa48255c4c4e92df2bd53c82815fe2d489ad3b576fad86808c"
    );
    assert_eq!(
        hash(&vmsa32(0)),
        "e0b6fac5681756de19cee1e58ccb007ef3ebb5a181cae8bd47aaf3ce7d39bb2b882fabe5d9ab832b8c2a88f26760ab23"
    );
}

/// The bytes that are not zero in the page of a Milan in QEMU's reset state, as listed by `sev-snp-measure`.
#[test]
fn the_reset_state_has_the_known_bytes() {
    let cpu = qemu_reset(MILAN);
    let page = Vmsa::from(&cpu);
    let found: Vec<(usize, u8)> =
        page.as_bytes().iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    let mut expected = vec![(0x11, 0xf0), (0x12, 0x9b), (0x1a, 0xff), (0x1b, 0xff)];
    for (base, attributes) in [(0x00, 0x93), (0x20, 0x93), (0x30, 0x93), (0x40, 0x93), (0x50, 0x93)] {
        expected.extend([(base + 2, attributes), (base + 4, 0xff), (base + 5, 0xff)]);
    }
    expected.extend([(0x14, 0xff), (0x15, 0xff), (0x64, 0xff), (0x65, 0xff), (0x84, 0xff), (0x85, 0xff)]);
    expected.extend([(0x72, 0x82), (0x74, 0xff), (0x75, 0xff), (0x92, 0x8b), (0x94, 0xff), (0x95, 0xff)]);
    expected.extend([(0xd1, 0x10), (0x148, 0x40), (0x158, 0x10), (0x161, 0x04)]);
    expected.extend([(0x168, 0xf0), (0x169, 0x0f), (0x16a, 0xff), (0x16b, 0xff), (0x170, 0x02)]);
    expected.extend([(0x178, 0xf0), (0x179, 0xff)]);
    expected.extend([(0x268, 6), (0x269, 4), (0x26a, 7), (0x26c, 6), (0x26d, 4), (0x26e, 7)]);
    expected.extend([(0x310, 0x11), (0x311, 0x0f), (0x312, 0xa0), (0x3b0, 1), (0x3e8, 1)]);
    expected.extend([(0x408, 0x80), (0x409, 0x1f), (0x410, 0x7f), (0x411, 0x03)]);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_general_register_has_its_place() {
    let general = GeneralRegisters {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        rsp: 8,
        r8_to_r15: [9, 10, 11, 12, 13, 14, 15, 16],
    };
    let page = Vmsa::from(&CpuState { general, ..vmsa32(0) });
    let places = [0x1f8, 0x318, 0x308, 0x310, 0x330, 0x338, 0x328, 0x1d8, 0x340, 0x348, 0x350, 0x358];
    for (value, place) in (1..).zip(places) {
        assert_eq!(page.as_bytes()[place], value, "{place:#x}");
    }
    assert_eq!(page.as_bytes()[0x378], 16);
}
