use nacre_stage0_abi::ImageKind;
use rstest::rstest;

use super::*;
use crate::guest::Validation;
use crate::sha256;
use crate::testing::{INITRD, KERNEL, Launch, MIB, Model};

fn model(platform: Platform) -> Model {
    let (launch, window) = Launch::new(platform);
    Model::new(&launch, window, platform)
}

#[rstest]
#[case::plain(Platform::Plain)]
#[case::snp(Platform::Snp)]
#[case::tdx(Platform::Tdx)]
fn a_measured_kernel_is_ready_to_be_started(#[case] platform: Platform) {
    let mut model = model(platform);
    let kernel = prepare(&mut model, platform);
    assert_eq!(kernel, Ok(Kernel { entry: KERNEL + 0x234, boot_params: 0x7000 }));
    assert_eq!(model.get(KERNEL + 0x234, 4), b"code");
    assert_eq!(model.get(KERNEL + 0x2000, 0x3000), [0; 0x3000]);
    assert_eq!(model.get(INITRD, 6), b"initrd");
    assert_eq!(model.get(0x2_0000, 13), b"console=hvc0\0");
    let bit = if platform == Platform::Snp { 1 << 51 } else { 0 };
    assert_eq!(model.root, Some(0x9000 | bit));
    assert_eq!(model.get(0x9000, 8), (0xa023u64 | bit).to_le_bytes());
}

#[test]
fn boot_params_say_where_everything_is() {
    let mut model = model(Platform::Snp);
    prepare(&mut model, Platform::Snp).unwrap();
    let number = |place: u64| u32::from_le_bytes(model.get(0x7000 + place, 4).try_into().unwrap());
    assert_eq!((number(0x218), number(0x21c)), (0x140_0000, 6));
    assert_eq!((number(0x228), number(0x238)), (0x2_0000, 13));
    assert_eq!(model.get(0x7202, 4), b"HdrS");
    assert_eq!(model.get(0x71e8, 1), [8]);
    assert_eq!(model.get(0x7070, 8), 0xe_0000u64.to_le_bytes());
    assert_eq!(model.get(0xe_0000, 8), b"RSD PTR ");
    assert_eq!(model.get(0xf_0000, 0x1_0000), [0; 0x1_0000]);
    assert_eq!(model.get(0x9_f000, 0x1000), [0; 0x1000]);
}

#[test]
fn on_snp_boot_params_lead_to_secrets_and_cpuid() {
    let mut model = model(Platform::Snp);
    prepare(&mut model, Platform::Snp).unwrap();
    assert_eq!(model.get(0x7250, 8), 0x8000u64.to_le_bytes());
    let node = [0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 0x40, 0x80, 0, 0];
    assert_eq!(model.get(0x8000, 20), node);
    let blob = [b'A', b'M', b'D', b'E', 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0];
    assert_eq!(model.get(0x8040, 20), blob);
    assert_eq!(model.get(0x8058, 12), [0, 0x60, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0]);
}

#[test]
fn without_a_tee_nothing_speaks_of_one() {
    let mut model = model(Platform::Plain);
    model.lie = |page| panic!("validates {page:#x}");
    prepare(&mut model, Platform::Plain).unwrap();
    assert_eq!(model.get(0x7070, 8), [0; 8]);
    assert_eq!(model.get(0x7250, 8), [0; 8]);
    assert_eq!(model.get(0x8000, 0x1000), [0; 0x1000]);
    assert_eq!(model.get(0xe_0000, 0x1_0000), [0; 0x1_0000]);
    assert_eq!(model.get(0xf_0000, 4), b"_MP_");
}

#[rstest]
#[case::tdx(Platform::Tdx)]
#[case::simulated(Platform::Plain)]
fn registers_get_what_was_checked(#[case] platform: Platform) {
    let (launch, window) = Launch::new(platform);
    let mut model = Model::new(&launch, window, platform);
    prepare(&mut model, platform).unwrap();
    let expected: Vec<_> = launch
        .images
        .iter()
        .map(|image| {
            let register = if image.kind == ImageKind::CommandLine { 2 } else { 1 };
            (register, [&image.sha256[..], &[0; 16]].concat().try_into().unwrap())
        })
        .collect();
    assert_eq!(model.extensions, expected);
}

#[test]
fn on_tdx_the_mailbox_is_empty_and_nothing_leads_to_a_blob() {
    let mut model = model(Platform::Tdx);
    prepare(&mut model, Platform::Tdx).unwrap();
    assert_eq!(model.get(0xf000, 0x1000), [0; 0x1000]);
    assert_eq!(model.get(0x8000, 0x1000), [0; 0x1000]);
    assert_eq!(model.get(0x7250, 8), [0; 8]);
}

#[test]
fn a_register_that_is_not_extended_stops_it() {
    let mut model = model(Platform::Tdx);
    model.refuses_extensions = true;
    assert_eq!(prepare(&mut model, Platform::Tdx), Err(Stop::RuntimeMeasurement));
}

#[rstest]
#[case(47)]
#[case(52)]
#[case(0)]
fn the_shared_bit_must_be_the_last_of_the_modules_width(#[case] width: u32) {
    let mut model = model(Platform::Tdx);
    model.width = width;
    assert_eq!(prepare(&mut model, Platform::Tdx), Err(Stop::EncryptionBit));
}

#[test]
fn a_processor_that_says_otherwise_stops_it() {
    for (tag, processor) in [(Platform::Snp, Platform::Plain), (Platform::Tdx, Platform::Plain)] {
        let mut model = model(tag);
        model.platform = processor;
        assert_eq!(prepare(&mut model, tag), Err(Stop::OtherPlatform));
    }
}

#[rstest]
#[case::kernel(0x2fff, Stop::KernelHash)]
#[case::initrd(0x3000, Stop::InitrdHash)]
#[case::command_line(0x3008, Stop::CommandLineHash)]
fn a_changed_byte_stops_it(#[case] place: usize, #[case] stop: Stop) {
    for platform in [Platform::Plain, Platform::Snp, Platform::Tdx] {
        let mut model = model(platform);
        model.window[place] ^= 1;
        assert_eq!(prepare(&mut model, platform), Err(stop));
    }
}

#[test]
fn what_the_host_changes_after_the_copy_has_no_effect() {
    let mut model = model(Platform::Snp);
    // Everything that was copied once is never read again; what comes later is not what was measured.
    model.after_copy = |window| window[..0x3000].fill(0xcc);
    assert!(prepare(&mut model, Platform::Snp).is_ok());
    assert_eq!(model.get(KERNEL + 0x234, 4), b"code");
}

#[test]
fn a_command_line_of_two_strings_is_refused() {
    let (mut launch, mut window) = Launch::new(Platform::Plain);
    window[0x300a] = 0;
    let line = launch.images.iter_mut().find(|image| image.kind == ImageKind::CommandLine).unwrap();
    line.sha256 = sha256::digest(&window[0x3006..0x3013], false);
    let mut model = Model::new(&launch, window, Platform::Plain);
    assert_eq!(prepare(&mut model, Platform::Plain), Err(Stop::CommandLine));
}

#[rstest]
#[case::hashes(layout::HASHES_PAGE, Stop::Hashes)]
#[case::hash(layout::HASHES_PAGE + 24 + 40, Stop::KernelHash)]
#[case::load_address(layout::HASHES_PAGE + 24 + 28, Stop::Hashes)]
#[case::entry(layout::HASHES_PAGE + 18, Stop::Hashes)]
#[case::parameters(layout::PARAMETERS_PAGE, Stop::Parameters)]
#[case::memory_wraps(layout::PARAMETERS_PAGE + 32 + 15, Stop::MemoryMap)]
#[case::memory_from_elsewhere(layout::PARAMETERS_PAGE + 32 + 1, Stop::MemoryMap)]
#[case::impossible_encryption_bit(layout::PARAMETERS_PAGE + 16, Stop::Parameters)]
#[case::cpuid_bit(layout::CPUID_PAGE + 16 + 28, Stop::EncryptionBit)]
#[case::cpuid_leaf(layout::CPUID_PAGE + 16, Stop::EncryptionBit)]
fn a_changed_page_stops_it(#[case] place: u64, #[case] stop: Stop) {
    let mut model = model(Platform::Snp);
    let changed = model.get(place, 1)[0] ^ 0x11;
    model.put(place, &[changed]);
    assert_eq!(prepare(&mut model, Platform::Snp), Err(stop));
}

#[test]
fn the_tag_and_the_encryption_bit_must_agree() {
    for (launched, tag) in [
        (Platform::Snp, Platform::Plain),
        (Platform::Tdx, Platform::Plain),
        (Platform::Plain, Platform::Snp),
        (Platform::Snp, Platform::Tdx),
    ] {
        let mut model = model(launched);
        model.platform = tag;
        assert_eq!(prepare(&mut model, tag), Err(Stop::EncryptionBit));
    }
}

#[test]
fn a_page_that_is_valid_before_its_time_stops_it() {
    let mut model = model(Platform::Snp);
    model.lie = |page| (page == 9 * MIB).then_some(Validation::DoneBefore);
    assert_eq!(prepare(&mut model, Platform::Snp), Err(Stop::ValidatedBefore));
}
