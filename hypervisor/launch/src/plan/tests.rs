use std::collections::HashSet;

use rstest::rstest;

use super::*;
use crate::id_block::{IdBlock, IdKey};
use crate::images::tests::kernel;

/// A stand-in for stage0: what it does is of no importance for its measurement.
pub fn stage0() -> Stage0Image {
    Stage0Image::new((0..0x6000u32).map(|place| u8::try_from(place % 251).unwrap()).collect()).unwrap()
}

pub fn images() -> GuestImages {
    GuestImages::new(&kernel(), b"an initrd", "console=hvc0").unwrap()
}

pub fn machine(vcpus: u32) -> Machine {
    Machine { vcpus, memory: memory_of(256 << 20).unwrap(), first_interrupt: 5, interrupts: 6 }
}

pub fn plan(vcpus: u32) -> LaunchPlan {
    LaunchPlan::snp(&stage0(), &images(), &machine(vcpus), Policy::default()).unwrap()
}

#[test]
fn an_snp_guest_starts_with_eight_measured_pages_and_two_of_the_firmwares() {
    let plan = plan(2);
    let pages: Vec<_> = plan
        .pages()
        .iter()
        .map(|page| (page.name(), page.gpa(), page.kind(), page.content().len()))
        .collect();
    let expected = [
        ("hashes", 0x1000, PageKind::Normal, 0x1000),
        ("parameters", 0x2000, PageKind::Normal, 0x1000),
        ("secrets", 0x5000, PageKind::Secrets, 0x1000),
        ("cpuid", 0x6000, PageKind::Cpuid, 0x1000),
        ("stage0", 0xffff_a000, PageKind::Normal, 0x6000),
    ];
    assert_eq!(pages, expected);
    assert_eq!((plan.measured_bytes(), plan.commands()), (8 * 4096, 12));
    assert_eq!(plan.cpus(), [CpuState::stage0_snp(0), CpuState::stage0_snp(1)]);
}

#[test]
fn the_largest_stage0_is_within_the_limits() {
    let largest = Stage0Image::new(vec![0x90; 48 << 10]).unwrap();
    let plan = LaunchPlan::snp(&largest, &images(), &machine(1), Policy::default()).unwrap();
    assert_eq!((plan.measured_bytes(), plan.commands()), (56 << 10, 17));
}

#[test]
fn a_tdx_guest_starts_with_what_leads_to_64_bit_mode() {
    let largest = Stage0Image::new(vec![0x90; 48 << 10]).unwrap();
    let plan = LaunchPlan::tdx(&largest, &images(), &machine(2)).unwrap();
    let pages: Vec<_> = plan
        .pages()
        .iter()
        .map(|page| (page.name(), page.gpa(), page.kind(), page.content().len()))
        .collect();
    let expected = [
        ("hashes", 0x1000, PageKind::Normal, 0x1000),
        ("parameters", 0x2000, PageKind::Normal, 0x1000),
        ("page-tables", 0x9000, PageKind::Unmeasured, 0x6000),
        ("stack", 0x1_c000, PageKind::Unmeasured, 0x4000),
        ("stage0", 0xffff_4000, PageKind::Normal, 0xc000),
    ];
    assert_eq!(pages, expected);
    assert_eq!(plan.cpus().len(), 2);
}

#[test]
fn a_plain_guest_starts_without_the_firmwares_pages() {
    let plan = LaunchPlan::plain(&stage0(), &images(), &machine(1), Policy::default()).unwrap();
    let names: Vec<_> = plan.pages().iter().map(PageRange::name).collect();
    assert_eq!(names, ["hashes", "parameters", "stage0"]);
    assert_eq!(plan.cpus(), [CpuState::stage0_plain(0)]);
}

#[test]
fn a_simulated_tdx_guest_has_a_plain_ones_pages_and_a_tdx_modules_measurement() {
    let plan = LaunchPlan::simulated_tdx(&stage0(), &images(), &machine(2)).unwrap();
    let plain = LaunchPlan::plain(&stage0(), &images(), &machine(2), Policy::default()).unwrap();
    assert_eq!((plan.pages(), plan.cpus()), (plain.pages(), plain.cpus()));
    let mut mrtd = Mrtd::new();
    for (gpa, page) in plan.pages().iter().flat_map(PageRange::pages) {
        mrtd.add_page(gpa, Some(page));
    }
    assert_eq!(plan.measurement(), mrtd.finish());
    assert_ne!(plan.measurement(), plain.measurement());
}

#[test]
fn the_measurement_is_that_of_the_pages_in_their_order() {
    let plan = plan(2);
    let mut digest = LaunchDigest::new();
    for range in plan.pages() {
        for (gpa, page) in range.pages() {
            digest.add_page(gpa, range.kind(), page);
        }
    }
    let cpus = digest.into_cpus().add_cpu(&CpuState::stage0_snp(0)).add_cpu(&CpuState::stage0_snp(1));
    assert_eq!(plan.measurement(), cpus.finish());
}

#[test]
fn whatever_decides_what_runs_is_measured_and_host_data_is_not() {
    let measure = |stage0: &Stage0Image, images: &GuestImages, machine: &Machine| {
        LaunchPlan::snp(stage0, images, machine, Policy::default()).unwrap().measurement()
    };
    let mut other_stage0 = stage0().bytes().to_vec();
    other_stage0[0] ^= 1;
    let other_stage0 = Stage0Image::new(other_stage0).unwrap();
    let mut other_kernel = kernel();
    other_kernel[0x2345] ^= 1;
    let other_kernel = GuestImages::new(&other_kernel, b"an initrd", "console=hvc0").unwrap();
    let other_initrd = GuestImages::new(&kernel(), b"An initrd", "console=hvc0").unwrap();
    let other_line = GuestImages::new(&kernel(), b"an initrd", "console=hvc1").unwrap();
    let other_memory = Machine { memory: memory_of(512 << 20).unwrap(), ..machine(1) };
    let measurements: HashSet<Measurement> = [
        measure(&stage0(), &images(), &machine(1)),
        measure(&stage0(), &images(), &machine(2)),
        measure(&stage0(), &images(), &other_memory),
        measure(&other_stage0, &images(), &machine(1)),
        measure(&stage0(), &other_kernel, &machine(1)),
        measure(&stage0(), &other_initrd, &machine(1)),
        measure(&stage0(), &other_line, &machine(1)),
    ]
    .into();
    assert_eq!(measurements.len(), 7);

    let pod = plan(1).with_host_data(HostData([9; 32]));
    assert_eq!(pod.measurement(), plan(1).measurement());
    assert_eq!(pod.host_data(), HostData([9; 32]));
}

#[rstest]
#[case::small(256 << 20, &[(0, 256 << 20)])]
#[case::to_the_gap(3 << 30, &[(0, 3 << 30)])]
#[case::beyond(4 << 30, &[(0, 3 << 30), (1 << 32, 1 << 30)])]
fn memory_is_below_and_above_the_gap(#[case] bytes: u64, #[case] expected: &[(u64, u64)]) {
    let found: Vec<_> = memory_of(bytes).unwrap().iter().map(|range| (range.start(), range.len())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_machine_that_stage0_would_refuse_gets_no_plan() {
    let error = LaunchPlan::snp(&stage0(), &images(), &machine(0), Policy::default()).unwrap_err();
    assert!(matches!(error, PlanError::Parameters(ParametersError::Vcpus(0))), "{error}");
    let little = Machine { memory: memory_of(16 << 20).unwrap(), ..machine(1) };
    let error = LaunchPlan::snp(&stage0(), &images(), &little, Policy::default()).unwrap_err();
    assert!(matches!(error, PlanError::Images(_)), "{error}");
}

#[test]
fn an_id_block_must_be_for_this_launch() {
    let key = IdKey::generate();
    let (measurement, policy) = (plan(1).measurement(), Policy::default());
    let bound = plan(1).with_id_block(IdBlock::new(measurement, policy).sign(&key, None)).unwrap();
    assert_eq!(bound.id_block().map(|signed| signed.block().measurement()), Some(measurement));
    assert_eq!(bound.measurement(), measurement);

    let other = plan(2).with_id_block(IdBlock::new(measurement, policy).sign(&key, None)).unwrap_err();
    assert!(matches!(other, PlanError::IdBlockMeasurement { .. }), "{other}");
    let debug = Policy::new(policy.bits() | Policy::DEBUG).unwrap();
    let other = plan(1).with_id_block(IdBlock::new(measurement, debug).sign(&key, None)).unwrap_err();
    assert!(matches!(other, PlanError::IdBlockPolicy { expected: 0xb_0000, .. }), "{other}");
}
