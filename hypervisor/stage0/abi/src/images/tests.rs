use rstest::rstest;

use super::*;

const MIB: u64 = 1 << 20;
const WINDOW: u64 = layout::SHARED_WINDOW.start();

fn memory() -> MemoryMap {
    MemoryMap::new([(0, 256 * MIB), (1 << 32, MIB)]).unwrap()
}

fn image(kind: ImageKind, source: (u64, u64), target: (u64, u64)) -> Image {
    let source = AddressRange::new(source.0, source.1).unwrap();
    let target = AddressRange::new(target.0, target.1).unwrap();
    Image { kind, source, target, sha256: [7; 32] }
}

fn list() -> [Image; 4] {
    [
        image(ImageKind::Kernel, (WINDOW, 8 * MIB), (16 * MIB, 8 * MIB)),
        image(ImageKind::Kernel, (WINDOW + 8 * MIB, MIB), (24 * MIB, 3 * MIB)),
        image(ImageKind::Initrd, (WINDOW + 9 * MIB, MIB + 5), (32 * MIB, MIB + 5)),
        image(ImageKind::CommandLine, (WINDOW + 11 * MIB, 20), (layout::FIRST_LOAD, 20)),
    ]
}

fn page() -> HashesPage {
    Images::new(16 * MIB, list(), &memory()).unwrap().to_page()
}

#[test]
fn a_page_says_what_it_was_made_from() {
    let images = Images::parse(&page(), &memory()).unwrap();
    assert!(images.iter().eq(&list()));
    assert_eq!(images.entry(), 16 * MIB);
    assert_eq!(images.initrd(), Some(&list()[2]));
    assert_eq!(images.command_line(), Some(&list()[3]));
}

#[test]
fn an_initrd_is_not_needed() {
    let [text, data, _, command_line] = list();
    let images = Images::new(16 * MIB, [text, data, command_line], &memory()).unwrap();
    assert_eq!(images.initrd(), None);
}

#[rstest]
#[case::magic(|page: &mut HashesPage| page.magic = 0, ImagesError::NotHashes)]
#[case::version(|page: &mut HashesPage| page.version = 2, ImagesError::NotHashes)]
#[case::count(|page: &mut HashesPage| page.count = 17, ImagesError::TooMany)]
#[case::hidden(|page: &mut HashesPage| page.count = 3, ImagesError::Reserved)]
#[case::trailing(|page: &mut HashesPage| page.reserved[0] = 1, ImagesError::Reserved)]
#[case::reserved(|page: &mut HashesPage| page.images[2].reserved = 1, ImagesError::Reserved)]
#[case::kind(|page: &mut HashesPage| page.images[2].kind = 4, ImagesError::Kind(4))]
#[case::empty(|page: &mut HashesPage| page.images[2].size = 0, ImagesError::Source { source_address: WINDOW + 9 * MIB, size: 0 })]
#[case::private_source(|page: &mut HashesPage| page.images[2].source = WINDOW - 1, ImagesError::Source { source_address: WINDOW - 1, size: MIB + 5 })]
#[case::source_beyond_the_window(|page: &mut HashesPage| page.images[2].source = 0xd000_0000 - MIB, ImagesError::Source { source_address: 0xd000_0000 - MIB, size: MIB + 5 })]
#[case::target_wraps(|page: &mut HashesPage| page.images[1].memory_size = u64::MAX, ImagesError::Target { load: 24 * MIB, size: u64::MAX })]
#[case::target_shorter(|page: &mut HashesPage| page.images[1].memory_size = MIB - 1, ImagesError::Target { load: 24 * MIB, size: MIB - 1 })]
#[case::zeros_behind_the_initrd(|page: &mut HashesPage| page.images[2].memory_size += 1, ImagesError::Target { load: 32 * MIB, size: MIB + 6 })]
#[case::over_stage0s_data(|page: &mut HashesPage| page.images[3].load -= 1, ImagesError::Target { load: layout::FIRST_LOAD - 1, size: 20 })]
#[case::over_the_tables(|page: &mut HashesPage| page.images[3].load = layout::MP_TABLE, ImagesError::Target { load: layout::MP_TABLE, size: 20 })]
#[case::no_memory(|page: &mut HashesPage| page.images[2].load = 256 * MIB - 4, ImagesError::Target { load: 256 * MIB - 4, size: MIB + 5 })]
#[case::above_four_gib(|page: &mut HashesPage| page.images[3].load = 1 << 32, ImagesError::Target { load: 1 << 32, size: 20 })]
#[case::overlap(|page: &mut HashesPage| page.images[2].load = 27 * MIB - 1, ImagesError::Overlap { load: 27 * MIB - 1 })]
#[case::two_command_lines(|page: &mut HashesPage| page.images[2].kind = 3, ImagesError::CommandLine(MIB + 5))]
#[case::two_initrds(|page: &mut HashesPage| page.images[3].kind = 2, ImagesError::Kinds)]
#[case::entry_in_the_zeros(|page: &mut HashesPage| page.entry = 25 * MIB, ImagesError::Entry(25 * MIB))]
#[case::entry_in_the_initrd(|page: &mut HashesPage| page.entry = 32 * MIB, ImagesError::Entry(32 * MIB))]
#[case::entry_at_the_end(|page: &mut HashesPage| page.entry = u64::MAX, ImagesError::Entry(u64::MAX))]
fn refuses_a_page_that_breaks_a_rule(#[case] change: fn(&mut HashesPage), #[case] error: ImagesError) {
    let mut page = page();
    change(&mut page);
    assert_eq!(Images::parse(&page, &memory()), Err(error));
}
