use std::collections::BTreeMap;

use nacre_launch::Tee;
use nacre_stage0_abi::AddressRange;
use rstest::rstest;

use super::model::{Call, FIXED, Model, Wishes, XFAM};
use super::*;
use crate::private::{Attributes, Capability, MemoryKernel};
use crate::stand_in::{self, regions};

fn plan(tee: Tee, vcpus: u32) -> LaunchPlan {
    stand_in::plan(tee, vcpus).with_host_data(HostData([7; 32]))
}

fn launch(model: &Arc<Model>, plan: &LaunchPlan, vcpus: u8) -> Result<Launched<usize>, TdxError> {
    let (regions, _mappings) = regions();
    let launch = Launch::begin(Arc::clone(model))?.initialise(&Identity::of(plan.host_data()), vcpus)?;
    launch.add_memory(&regions)?.create_cpus(vcpus)?.measure(plan)?.finish()
}

fn refusal(wishes: Wishes) -> String {
    crate::chain_text(&launch(&Arc::new(Model::new(wishes)), &plan(Tee::Tdx, 1), 1).unwrap_err())
}

fn failing(call: Call, times: u32, errno: Errno, module: u64) -> Wishes {
    let failures = BTreeMap::from([(call, (times, TdxStatus { errno, module }))]);
    Wishes { failures, ..Wishes::default() }
}

#[rstest]
#[case(1)]
#[case(2)]
#[case(8)]
fn the_module_measures_what_was_planned(#[case] vcpus: u8) {
    let (model, plan) = (Arc::new(Model::default()), plan(Tee::Tdx, vcpus.into()));
    let launched = launch(&model, &plan, vcpus).unwrap();
    let guest = model.guest();
    assert_eq!(guest.measurement, Some(plan.measurement()));
    assert!(model.is_prepared());
    assert_eq!((launched.cpus.len(), launched.regions.len()), (usize::from(vcpus), 2));
    assert_eq!(launched.requests, 2);
    assert_eq!(guest.most_cpus, u32::from(vcpus));
    // The host has 2.112003 GHz; the module counts in units of 25 MHz.
    assert_eq!(guest.tsc_khz, 2_100_000);
    assert_eq!(guest.attributes, 1 << 28);
    // Without LBR, whose state no container needs.
    assert_eq!(guest.xfam, XFAM & !(1 << 15));
    assert_eq!(guest.config_id, [vec![7; 32], vec![0; 16]].concat());
    let measured: Vec<u64> =
        guest.pages.iter().filter(|(_, measured)| *measured).map(|(gpa, _)| *gpa).collect();
    assert_eq!(measured, [0x1000, 0x2000, 0xffff_d000, 0xffff_e000, 0xffff_f000]);
    let planned: usize = plan.pages().iter().map(|range| range.pages().count()).sum();
    assert_eq!(guest.pages.len(), planned);
    assert!(guest.pages.len() > measured.len());
}

#[test]
fn cpus_are_told_what_the_module_says() {
    let model = Arc::new(Model::default());
    launch(&model, &plan(Tee::Tdx, 2), 2).unwrap();
    for cpu in model.guest().cpus {
        assert_eq!(cpu.rcx, Some(0));
        let eax = |function| cpu.cpuid.iter().find(|entry| entry.function == function).unwrap().eax;
        assert_eq!(eax(1), FIXED | 0x0020_1234);
        assert_eq!(eax(0x8000_0008), FIXED | 48 << 16);
        // A leaf that the module leaves to KVM.
        assert_eq!(eax(2), u32::MAX);
    }
}

#[rstest]
fn what_interrupts_a_command_only_costs_time(
    #[values(Call::Capabilities, Call::InitCpu, Call::AddPages, Call::Cpuid, Call::Finalize)] call: Call,
    #[values(Errno::EAGAIN, Errno::EINTR, Errno::EBUSY)] errno: Errno,
    #[values(0, 0x8000_0200_0000_0001)] module: u64,
) {
    let (model, plan) = (Arc::new(Model::new(failing(call, 5, errno, module))), plan(Tee::Tdx, 1));
    launch(&model, &plan, 1).unwrap();
    assert_eq!(model.guest().measurement, Some(plan.measurement()));
    assert!(model.calls(call) > 5);
}

#[rstest]
#[case(Errno::EAGAIN, 5000)]
#[case(Errno::EINTR, 5)]
#[case(Errno::EBUSY, 5)]
fn a_processor_without_random_numbers_is_asked_again(#[case] errno: Errno, #[case] times: u32) {
    let model = Arc::new(Model::new(failing(Call::InitVm, times, errno, 0x8000_0203_0000_0000)));
    launch(&model, &plan(Tee::Tdx, 1), 1).unwrap();
    assert_eq!(model.calls(Call::InitVm), times + 1);
}

#[rstest]
#[case(Call::Capabilities, "KVM_TDX_CAPABILITIES failed: ")]
#[case(Call::InitVm, "the TDX module refused the trust domain: ")]
#[case(Call::InitCpu, "the TDX module refused CPU 0: ")]
#[case(Call::AddPages, "page 0x1000 of the guest's hashes was refused: ")]
#[case(Call::Cpuid, "KVM_TDX_GET_CPUID failed: ")]
#[case(Call::Finalize, "the launch could not be finished: ")]
fn a_module_that_is_always_busy_is_given_up(#[case] call: Call, #[case] text: &str) {
    let wishes = failing(call, u32::MAX, Errno::EAGAIN, 0x8000_0200_0000_0000);
    let refused = refusal(wishes);
    assert_eq!(refused, format!("{text}status 0x8000020000000000 of the TDX module, an operand is busy"));
}

#[test]
fn pages_are_taken_up_where_a_signal_came() {
    let wishes = Wishes { batch: 1, ..Wishes::default() };
    let (model, plan) = (Arc::new(Model::new(wishes)), plan(Tee::Tdx, 1));
    launch(&model, &plan, 1).unwrap();
    assert_eq!(model.guest().measurement, Some(plan.measurement()));
    assert_eq!(usize::try_from(model.calls(Call::AddPages)).unwrap(), model.guest().pages.len());
}

#[test]
fn lists_of_values_grow_until_they_fit() {
    let model = Arc::new(Model::new(Wishes { more_cpuid: 200, ..Wishes::default() }));
    launch(&model, &plan(Tee::Tdx, 1), 1).unwrap();
    assert_eq!((model.calls(Call::Capabilities), model.calls(Call::Cpuid)), (3, 3));
    // One that never fits is given up.
    let text = refusal(Wishes { more_cpuid: 100_000, ..Wishes::default() });
    assert!(text.starts_with("KVM_TDX_CAPABILITIES failed: "), "{text}");
}

#[rstest]
#[case::old_kernel(
    Wishes { lacks: Some(Capability::GuestMemfd), ..Wishes::default() },
    "Intel TDX is not possible on this host: KVM lacks KVM_CAP_GUEST_MEMFD; `nacre check` says more"
)]
#[case::attribute(
    Wishes { without_attributes: 1 << 28, ..Wishes::default() },
    "Intel TDX is not possible on this host: the TDX module lacks the attribute SEPT_VE_DISABLE; `nacre check` says more"
)]
#[case::no_key(
    Wishes { no_key: true, ..Wishes::default() },
    "the processor has no key for another trust domain: end one, or give TDX more keys in the BIOS"
)]
#[case::operand(
    failing(Call::InitVm, 1, Errno::EINVAL, 0xc000_0100_0000_0002),
    "the TDX module refused the trust domain: status 0xc000010000000002 of the TDX module, an operand is invalid"
)]
#[case::page(
    failing(Call::AddPages, 1, Errno::EIO, 0xc000_0b0a_0000_0001),
    "page 0x1000 of the guest's hashes was refused: status 0xc0000b0a00000001 of the TDX module, a page was added before"
)]
#[case::kernel(
    failing(Call::Finalize, 1, Errno::EINVAL, 0),
    "the launch could not be finished: Invalid argument, without a status of the TDX module's"
)]
fn a_refusal_says_what_was_refused_and_why(#[case] wishes: Wishes, #[case] text: &str) {
    assert_eq!(refusal(wishes), text);
}

#[test]
fn more_cpus_than_the_host_has_are_refused_by_name() {
    let model = Arc::new(Model::new(Wishes { most_cpus: 4, ..Wishes::default() }));
    let text = launch(&model, &plan(Tee::Tdx, 8), 8).unwrap_err().to_string();
    assert_eq!(text, "the VM has 8 CPUs, a trust domain can have 4 on this host: lower vm.max_vcpus");
}

#[test]
fn a_plan_for_another_technology_or_size_is_refused() {
    let text = launch(&Arc::new(Model::default()), &plan(Tee::Snp, 1), 1).unwrap_err().to_string();
    assert_eq!(text, "the plan has pages of the guest's secrets that a TDX module can't add");
    let text = launch(&Arc::new(Model::default()), &plan(Tee::Tdx, 1), 2).unwrap_err().to_string();
    assert_eq!(text, "the plan is for 1 CPUs, 2 were made");
}

#[rstest]
#[case(1 << 6)]
#[case(1 << 11)]
#[case(1 << 17)]
fn extended_state_that_is_there_in_part_is_left_out(#[case] without: u64) {
    let model = Arc::new(Model::new(Wishes { without_xfam: without, ..Wishes::default() }));
    launch(&model, &plan(Tee::Tdx, 1), 1).unwrap();
    let xfam = model.guest().xfam;
    let group = XFAM_WANTED.into_iter().find(|group| group & without != 0).unwrap();
    assert_eq!(xfam, XFAM & !(1 << 15) & !group);
}

#[rstest]
#[case(2_000_000, 2_000_000)]
#[case(2_987_501, 3_000_000)]
#[case(50_000, 100_000)]
#[case(20_000_000, 10_000_000)]
#[case(u32::MAX, 10_000_000)]
fn the_frequency_is_one_that_the_module_can_name(#[case] host: u32, #[case] guest: u32) {
    assert_eq!(tsc_frequency(host), guest);
    let model = Arc::new(Model::new(Wishes { tsc_khz: host, ..Wishes::default() }));
    launch(&model, &plan(Tee::Tdx, 1), 1).unwrap();
    assert_eq!(model.guest().tsc_khz, guest);
}

/// A trust domain with memory and one CPU.
fn started() -> (Arc<Model>, Vec<Mapping>) {
    let model = Arc::new(Model::default());
    let (regions, mappings) = regions();
    let launch = Launch::begin(Arc::clone(&model)).unwrap();
    launch
        .initialise(&Identity::of(HostData([0; 32])), 1)
        .unwrap()
        .add_memory(&regions)
        .unwrap()
        .create_cpus(1)
        .unwrap();
    (model, mappings)
}

fn page() -> (Mapping, MemRegion) {
    let mapping = Mapping::zeros(4096).unwrap();
    let region = MemRegion { source_addr: mapping.address(), gpa: 0x1_0000, nr_pages: 1 };
    (mapping, region)
}

fn add(model: &Model, region: &mut MemRegion) -> Result<(), TdxStatus> {
    model.cpu(&0, CpuCommand::AddPages { region, measure: true })
}

/// What the types of a launch do not let us write, the model refuses as KVM does: it is no test of ours that passes by
/// a model that takes everything.
#[test]
fn the_model_refuses_a_wrong_order() {
    let invalid = Err(TdxStatus { errno: Errno::EINVAL, module: 0 });
    let model = Model::default();
    assert_eq!(model.machine(MachineCommand::Finalize), invalid);
    assert!(model.create_cpu(0).is_err());
    assert_eq!(model.set_apic_bus_cycle(40), Err(Errno::EINVAL));
    model.split_irqchip().unwrap();
    assert!(model.create_cpu(0).is_err());

    let (model, _mappings) = started();
    let (_mapping, mut region) = page();
    assert_eq!(model.cpu(&0, CpuCommand::Init(0)), invalid);
    assert_eq!(model.set_tsc_khz(2_000_000), Err(Errno::EINVAL));
    assert!(model.create_cpu(1).is_err());
    let entries = model.guest().cpuid;
    let head = InitVm::new(0, 3, &Identity::of(HostData([0; 32])), u32::try_from(entries.len()).unwrap());
    assert_eq!(model.machine(MachineCommand::Init(&mut Listed::new(&head, &entries))), invalid);
    model.machine(MachineCommand::Finalize).unwrap();
    assert_eq!(model.machine(MachineCommand::Finalize), invalid);
    assert_eq!(add(&model, &mut region), invalid);
}

#[rstest]
#[case::attribute(|head: &mut InitVm, _: &mut Vec<kvm_cpuid_entry2>| head.attributes |= 1)]
#[case::state(|head: &mut InitVm, _: &mut Vec<kvm_cpuid_entry2>| head.xfam |= 1 << 60)]
#[case::no_sse(|head: &mut InitVm, _: &mut Vec<kvm_cpuid_entry2>| head.xfam = 1)]
#[case::reserved(|head: &mut InitVm, _: &mut Vec<kvm_cpuid_entry2>| head.reserved[11] = 1)]
#[case::unknown_leaf(|_: &mut InitVm, list: &mut Vec<kvm_cpuid_entry2>| list[0].function = 0x77)]
#[case::beyond_the_mask(|_: &mut InitVm, list: &mut Vec<kvm_cpuid_entry2>| list[0].ecx |= 1 << 31)]
#[case::no_flag(|_: &mut InitVm, list: &mut Vec<kvm_cpuid_entry2>| list.iter_mut().for_each(|entry| entry.flags = 0))]
#[case::no_width(|_: &mut InitVm, list: &mut Vec<kvm_cpuid_entry2>| list.retain(|entry| entry.function != 0x8000_0008))]
fn the_model_refuses_wrong_parameters(#[case] change: fn(&mut InitVm, &mut Vec<kvm_cpuid_entry2>)) {
    let (right, _mappings) = started();
    let mut entries = right.guest().cpuid;
    let mut head = InitVm::new(1 << 28, 3, &Identity::of(HostData([0; 32])), 0);
    let init = |head: &InitVm, entries: &[kvm_cpuid_entry2]| {
        let mut head = *head;
        head.nent = u32::try_from(entries.len()).unwrap();
        Model::default().machine(MachineCommand::Init(&mut Listed::new(&head, entries)))
    };
    init(&head, &entries).unwrap();
    change(&mut head, &mut entries);
    assert_eq!(init(&head, &entries).map_err(|status| status.errno), Err(Errno::EINVAL));
}

#[rstest]
#[case::nothing(|region: &mut MemRegion| region.nr_pages = 0)]
#[case::no_source(|region: &mut MemRegion| region.source_addr = 0)]
#[case::unaligned_source(|region: &mut MemRegion| region.source_addr += 8)]
#[case::unaligned(|region: &mut MemRegion| region.gpa += 8)]
#[case::shared_bit(|region: &mut MemRegion| region.gpa |= 1 << 47)]
#[case::outside(|region: &mut MemRegion| region.gpa = 0xd000_0000)]
#[case::over_the_end(|region: &mut MemRegion| { region.gpa = 0x3ff_f000; region.nr_pages = 2 })]
fn the_model_refuses_a_wrong_page(#[case] change: fn(&mut MemRegion)) {
    let (model, _mappings) = started();
    let (_mapping, mut region) = page();
    change(&mut region);
    assert_eq!(add(&model, &mut region), Err(TdxStatus { errno: Errno::EINVAL, module: 0 }));
}

#[test]
fn the_model_refuses_a_page_that_is_shared_or_was_added() {
    let (model, _mappings) = started();
    let (_mapping, region) = page();
    let range = AddressRange::new(0x1_0000, 0x1000).unwrap();
    model.memory().set_private(range, false).unwrap();
    assert_eq!(add(&model, &mut { region }).map_err(|status| status.errno), Err(Errno::EFAULT));
    model.memory().set_private(range, true).unwrap();
    assert_eq!(add(&model, &mut { region }), Ok(()));
    assert_eq!(add(&model, &mut { region }).map_err(|status| status.errno), Err(Errno::EIO));
    assert!(model.memory().create_guest_memfd(0).is_err());
}
