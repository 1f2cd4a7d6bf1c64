use rstest::rstest;

use nacre_stage0_abi::{MemoryMap, PageBit};

use super::*;
use crate::testing::{Launch, MIB, Model};

fn model(platform: Platform) -> Model {
    let (launch, window) = Launch::new(platform);
    Model::new(&launch, window, platform)
}

fn take_ranges(model: &mut Model, ranges: &[(u64, u64)]) -> Result<(), Stop> {
    let memory = MemoryMap::new(ranges.iter().copied()).unwrap();
    let page_bit = PageBit::Private(51);
    let parameters = Parameters { vcpus: 1, page_bit, first_interrupt: 5, interrupts: 1, memory };
    take_into_use(model, model.platform, &parameters)
}

fn take_all(model: &mut Model) -> Result<(), Stop> {
    take_ranges(model, &[(0, 8 * MIB + 0x5000)])
}

#[rstest]
#[case::small_pages(Platform::Snp, false)]
#[case::large_pages(Platform::Snp, true)]
#[case::tdx_small_pages(Platform::Tdx, false)]
#[case::tdx_large_pages(Platform::Tdx, true)]
fn each_page_that_was_not_launched_is_validated_once(#[case] platform: Platform, #[case] large_pages: bool) {
    let mut model = model(platform);
    model.large_pages = large_pages;
    let launched: Vec<u64> = model.valid.keys().copied().collect();
    assert_eq!(take_all(&mut model), Ok(()));
    for page in (0..8 * MIB + 0x5000).step_by(4096) {
        let expected = u32::from(!launched.contains(&page));
        assert_eq!(model.valid.get(&page), Some(&expected), "{page:#x}");
    }
    assert_eq!(model.valid.get(&(8 * MIB + 0x5000)), None);
}

#[test]
fn memory_in_two_places_is_taken_in_both() {
    let mut model = model(Platform::Snp);
    model.large_pages = true;
    assert_eq!(take_ranges(&mut model, &[(0, 2 * MIB), (1 << 32, 2 * MIB)]), Ok(()));
    assert_eq!(model.valid.get(&((1 << 32) + 0x1f_f000)), Some(&1));
    assert_eq!(model.valid.get(&(2 * MIB)), None);
}

#[rstest]
#[case::launched_page_again(|page| (page == 0x3000).then_some(Validation::DoneBefore), Stop::ValidatedBefore)]
#[case::page_within(|page| (page == 3 * MIB).then_some(Validation::DoneBefore), Stop::ValidatedBefore)]
#[case::refused(|page| (page == 3 * MIB).then_some(Validation::Refused), Stop::NotValidated)]
#[case::no_size_is_right(|page| (page == 3 * MIB).then_some(Validation::OtherSize), Stop::NotValidated)]
#[case::large_page_refused(|page| (page == 4 * MIB).then_some(Validation::Refused), Stop::NotValidated)]
fn a_host_that_lies_about_a_page_ends_it(#[case] lie: fn(u64) -> Option<Validation>, #[case] stop: Stop) {
    for platform in [Platform::Snp, Platform::Tdx] {
        let mut model = model(platform);
        model.lie = lie;
        assert_eq!(take_all(&mut model), Err(stop));
    }
}
