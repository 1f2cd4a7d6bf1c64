//! A stand-in for a guest's kernel, for the tests of whoever makes plans.

/// An ELF file with one segment of a page at 16 MiB.
pub fn kernel_file() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for number in [16u64 << 20, 64] {
        file.extend(number.to_le_bytes());
    }
    file.resize(54, 0);
    file.extend([56, 0, 1, 0]);
    file.resize(64, 0);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for number in [0x1000u64, 0, 16 << 20, 0x1000, 0x1000, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.resize(0x2000, 0x90);
    file
}
