use std::io::Write;

use rstest::rstest;
use vm_memory::ByteValued;

use super::*;
use crate::memory;

/// An ELF with one segment at 16 MiB whose first bytes are `0xf4`s (hlt).
fn kernel(entry: u64, memory_size: u64) -> File {
    let code = [0xf4u8; 64];
    let mut elf = Vec::new();
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([2u8, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend(entry.to_le_bytes());
    elf.extend(64u64.to_le_bytes());
    elf.extend([0u8; 12]);
    elf.extend([64u8, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let place = 0x100_0000u64;
    elf.extend([1u8, 0, 0, 0, 5, 0, 0, 0]);
    for word in [120, place, place, code.len() as u64, memory_size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    file(&elf)
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn source(kernel: File, initrd: File) -> BootSource {
    BootSource { kernel, initrd, command_line: "console=hvc0".into(), vcpus: 2, interrupts: 5..9 }
}

#[test]
fn kernel_initrd_and_tables_are_where_the_zero_page_says() {
    let memory = memory::allocate(64).unwrap();
    let initrd = [7u8; 5000];
    let placed = place(&memory, source(kernel(0x100_0000, 0x2000), file(&initrd))).unwrap();

    assert_eq!((placed.entry, placed.kernel_end), (0x100_0000, 0x100_2000));
    assert_eq!(placed.initrd, (64 << 20) - 8192);
    let mut page = loader::bootparam::boot_params::default();
    memory.read_slice(as_bytes(&mut page), GuestAddress(layout::ZERO_PAGE)).unwrap();
    assert_eq!({ page.hdr.header }, 0x5372_6448);
    assert_eq!({ page.hdr.ramdisk_size }, 5000);
    assert_eq!(u64::from(page.hdr.ramdisk_image), placed.initrd);
    assert_eq!(page.e820_entries, 2);
    assert_eq!(({ page.e820_table[1].addr }, { page.e820_table[1].size }), (1 << 20, 63 << 20));
    let mut last = [0; 2];
    memory.read_slice(&mut last, GuestAddress(placed.initrd + 4999)).unwrap();
    assert_eq!(last, [7, 0]);
    let mut line = [0; 13];
    memory.read_slice(&mut line, GuestAddress(u64::from(page.hdr.cmd_line_ptr))).unwrap();
    assert_eq!(&line, b"console=hvc0\0");
    let mut table = [0; 4];
    memory.read_slice(&mut table, GuestAddress(0xf_0000)).unwrap();
    assert_eq!(&table, b"_MP_");
}

fn as_bytes<T: ByteValued>(value: &mut T) -> &mut [u8] {
    value.as_mut_slice()
}

#[rstest]
#[case(
    file(b"MZ not an elf at all, but long enough for a header: ................"),
    "must be an uncompressed ELF"
)]
#[case(file(b""), "must be an uncompressed ELF")]
#[case(kernel(0x200_0000, 0x1000), "entry 0x2000000 is outside")]
#[case(kernel(0x1000, 0x1000), "must be an uncompressed ELF")]
fn a_bad_kernel_is_named(#[case] kernel: File, #[case] message: &str) {
    let memory = memory::allocate(64).unwrap();
    let error = place(&memory, source(kernel, file(b"x"))).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn an_initrd_that_does_not_fit_is_refused_with_both_numbers() {
    let memory = memory::allocate(64).unwrap();
    let large = tempfile::tempfile().unwrap();
    large.set_len(60 << 20).unwrap();
    let error = place(&memory, source(kernel(0x100_0000, 0x1000), large)).unwrap_err().to_string();
    assert_eq!(
        error,
        "an initrd of 62914560 bytes does not fit guest memory: 50327552 bytes are free beside the kernel"
    );
    let error = place(&memory, source(kernel(0x100_0000, 0x1000), file(b""))).unwrap_err().to_string();
    assert_eq!(error, "the initrd is empty");
}

#[test]
fn a_command_line_beyond_the_kernels_limit_is_refused() {
    let memory = memory::allocate(64).unwrap();
    let mut source = source(kernel(0x100_0000, 0x1000), file(b"x"));
    source.command_line = "x".repeat(2048);
    assert!(matches!(place(&memory, source), Err(BootError::CommandLine(2048))));
}
