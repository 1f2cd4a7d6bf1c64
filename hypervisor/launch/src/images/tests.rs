use proptest::prelude::*;
use rstest::rstest;

use super::*;

const MIB: u64 = 1 << 20;

/// A program header: type, offset, physical address, size in the file, size in memory.
type Program = (u32, u64, u64, u64, u64);

/// An ELF file with these program headers, of `len` bytes, each byte of the rest the low byte of its place.
pub fn elf(entry: u64, programs: &[Program], len: usize) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(entry.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend([0; 14]);
    file.extend(56u16.to_le_bytes());
    file.extend(u16::try_from(programs.len()).unwrap().to_le_bytes());
    file.resize(64, 0);
    for (kind, offset, address, file_size, memory_size) in programs {
        file.extend(kind.to_le_bytes());
        file.extend([0; 4]);
        for number in [*offset, 0, *address, *file_size, *memory_size, 4096] {
            file.extend(number.to_le_bytes());
        }
    }
    file.extend((file.len()..len).map(|place| u8::try_from(place % 256).unwrap()));
    file
}

/// A kernel of two segments, the second with zeros behind it, and a note.
pub fn kernel() -> Vec<u8> {
    let programs = [
        (1, 0x1000, 16 * MIB, 0x2000, 0x2000),
        (1, 0x3000, 18 * MIB, 0x800, 0x5000),
        (4, 0x100, 0, 0x20, 0x20),
    ];
    elf(16 * MIB + 0x40, &programs, 0x4000)
}

fn memory() -> MemoryMap {
    MemoryMap::new([(0, 64 * MIB)]).unwrap()
}

#[test]
fn each_segment_is_copied_from_the_file_as_it_is_in_the_window() {
    let file = kernel();
    let images = GuestImages::new(&file, b"initrd", "console=hvc0").unwrap();
    let list: Vec<Image> = images.list(&memory()).unwrap().iter().copied().collect();
    let window = layout::SHARED_WINDOW.start();
    let expected = [
        (ImageKind::Kernel, window + 0x1000, 16 * MIB, 0x2000, &file[0x1000..0x3000]),
        (ImageKind::Kernel, window + 0x3000, 18 * MIB, 0x5000, &file[0x3000..0x3800]),
        (ImageKind::Initrd, window + 2 * MIB, 20 * MIB, 6, b"initrd"),
        (ImageKind::CommandLine, window + 4 * MIB, 0x2_0000, 13, b"console=hvc0\0"),
    ];
    assert_eq!(list.len(), expected.len());
    for (image, (kind, source, target, memory_size, bytes)) in list.iter().zip(expected) {
        assert_eq!((image.kind, image.source.start(), image.target.start()), (kind, source, target));
        assert_eq!((image.source.len(), image.target.len()), (bytes.len() as u64, memory_size));
        assert_eq!(image.sha256[..], Sha256::digest(bytes)[..]);
    }
}

#[test]
fn the_window_holds_whole_files() {
    let images = GuestImages::new(&kernel(), b"initrd", "quiet").unwrap();
    let window = layout::SHARED_WINDOW.start();
    let found: Vec<_> = images.shared().iter().map(|file| (file.source, file.range.start())).collect();
    let expected = [
        (ImageSource::Kernel, window),
        (ImageSource::Initrd, window + 2 * MIB),
        (ImageSource::CommandLine, window + 4 * MIB),
    ];
    assert_eq!(found, expected);
    assert_eq!(images.command_line(), b"quiet\0");
}

#[test]
fn a_guest_without_room_for_the_initrd_is_refused() {
    let images = GuestImages::new(&kernel(), &vec![1; 1 << 20], "").unwrap();
    assert!(images.list(&MemoryMap::new([(0, 21 * MIB)]).unwrap()).is_ok());
    let error = images.list(&MemoryMap::new([(0, 21 * MIB - 4096)]).unwrap()).unwrap_err();
    assert_eq!(error, nacre_stage0_abi::ImagesError::Target { load: 20 * MIB, size: MIB });
}

#[test]
fn a_zero_in_the_command_line_is_refused() {
    assert_eq!(GuestImages::new(&kernel(), b"", "a\0b").unwrap_err(), ImagesError::CommandLine);
}

#[rstest]
#[case::empty(vec![], KernelError::NotAKernel)]
#[case::compressed(b"MZ a bzImage begins like this".to_vec(), KernelError::NotAKernel)]
#[case::nothing_to_load(elf(0, &[(4, 0, 0, 1, 1)], 0), KernelError::NotAKernel)]
#[case::header_only(kernel()[..64].to_vec(), KernelError::Truncated)]
#[case::cut_off(kernel()[..0x3400].to_vec(), KernelError::Truncated)]
#[case::offset_wraps(elf(0, &[(1, u64::MAX, MIB, 0x1000, 0x1000)], 0x4000), KernelError::Truncated)]
#[case::address_wraps(elf(0, &[(1, 0, u64::MAX, 0x1000, 0x1000)], 0x4000), KernelError::Segment { address: u64::MAX })]
#[case::longer_than_memory(elf(0, &[(1, 0, MIB, 0x1000, 0xfff)], 0x4000), KernelError::Segment { address: MIB })]
fn refuses_a_file_that_is_no_kernel(#[case] file: Vec<u8>, #[case] error: KernelError) {
    assert_eq!(Kernel::parse(&file), Err(error));
}

proptest! {
    #[test]
    fn any_bytes_behind_an_elf_header_are_taken_or_refused(
        entry: u64,
        programs in prop::collection::vec(any::<Program>(), 0..6),
        len in 0..8192usize,
    ) {
        let file = elf(entry, &programs, len);
        if let Ok(kernel) = Kernel::parse(&file) {
            for segment in kernel.segments {
                prop_assert!(file.get(segment.file.clone()).is_some());
                prop_assert!(segment.target.end() <= kernel.end);
            }
        }
    }
}

#[test]
fn known_hashes_are_taken_as_they_are_and_the_others_computed() {
    let fresh = GuestImages::new(&kernel(), b"initrd", "quiet").unwrap();
    let (segments, initrd) = (fresh.hashes(ImageKind::Kernel), fresh.hashes(ImageKind::Initrd));
    let with = |kernel_hashes: &[Sha256Hash], initrd: &[Sha256Hash]| {
        let known = KnownHashes { kernel: kernel_hashes, initrd };
        GuestImages::with_known(&kernel(), b"initrd", "quiet", known).unwrap()
    };
    assert_eq!(with(&segments, &initrd).all(), fresh.all());

    let wrong: Vec<Sha256Hash> = segments.iter().map(|_| [7; 32]).collect();
    let stale = with(&wrong, &[[8; 32]]);
    assert_eq!(stale.hashes(ImageKind::Kernel), wrong);
    assert_eq!(stale.hashes(ImageKind::Initrd), [[8; 32]]);
    assert_eq!(stale.hashes(ImageKind::CommandLine), fresh.hashes(ImageKind::CommandLine));

    // Of a file with another number of segments: nothing that could be used.
    let too_many = [&wrong[..], &[[7; 32]]].concat();
    assert_eq!(with(&too_many, &[]).all(), fresh.all());
}
