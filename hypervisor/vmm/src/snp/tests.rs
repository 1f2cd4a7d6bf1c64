use nacre_launch::{
    CpuState, Guest, GuestFiles, HostData, IdBlock, IdKey, KnownHashes, Measurement, Policy, Tee,
};
use nacre_stage0_abi::AddressRange;
use rstest::rstest;

use super::model::{Model, Wishes, cpuid};
use super::*;
use crate::private::{Attributes, Capability};
use crate::stand_in::{self, kernel_file, regions};
use crate::unsafe_mapping::Mapping;

fn plan(vcpus: u32) -> LaunchPlan {
    stand_in::plan(Tee::Snp, vcpus)
}

fn launch(model: &Arc<Model>, plan: &LaunchPlan, vcpus: u8) -> Result<Launched<usize>, SnpError> {
    let (regions, _mappings) = regions();
    let launch = Launch::begin(Arc::clone(model))?.add_memory(&regions)?.create_cpus(vcpus)?;
    launch.measure(plan, &cpuid())?.finish(plan)
}

fn refusal(wishes: Wishes) -> String {
    crate::chain_text(&launch(&Arc::new(Model::new(wishes)), &plan(1), 1).unwrap_err())
}

fn error(errno: Errno, firmware: u32) -> SevError {
    SevError { errno, firmware }
}

#[rstest]
#[case(1)]
#[case(2)]
#[case(8)]
fn the_processor_measures_what_was_planned(#[case] vcpus: u8) {
    let (model, plan) = (Arc::new(Model::default()), plan(vcpus.into()).with_host_data(HostData([7; 32])));
    let launched = launch(&model, &plan, vcpus).unwrap();
    let finished = model.finished().unwrap();
    assert_eq!(finished.measurement, plan.measurement());
    assert_eq!((finished.host_data, finished.id_block), ([7; 32], false));
    assert_eq!((launched.cpus.len(), launched.regions.len()), (usize::from(vcpus), 2));
    assert_eq!(model.hypercalls(), 1 << 12);
    let expected = [
        (0x1000, 1),
        (0x2000, 1),
        (0x5000, 5),
        (0x6000, 6),
        (0xffff_d000, 1),
        (0xffff_e000, 1),
        (0xffff_f000, 1),
    ];
    assert_eq!(model.assigned(), expected);
    // One call for each range.
    assert_eq!(model.updates(), 5);
}

#[test]
fn partial_progress_is_taken_up_where_it_ended() {
    let (model, plan) = (Arc::new(Model::new(Wishes { batch: 1, ..Wishes::default() })), plan(1));
    launch(&model, &plan, 1).unwrap();
    assert_eq!(model.finished().unwrap().measurement, plan.measurement());
    assert_eq!(model.updates(), 7);
}

#[test]
fn signals_and_a_busy_firmware_only_cost_time() {
    let interruptions =
        vec![error(Errno::EINTR, u32::MAX), error(Errno::EAGAIN, u32::MAX), error(Errno::EIO, 0)];
    let model = Arc::new(Model::new(Wishes { interruptions, batch: 1, ..Wishes::default() }));
    let plan = plan(1);
    launch(&model, &plan, 1).unwrap();
    assert_eq!(model.finished().unwrap().measurement, plan.measurement());
}

#[test]
fn a_firmware_that_is_always_busy_is_given_up() {
    let interruptions = vec![error(Errno::EAGAIN, u32::MAX); 1000];
    let text = refusal(Wishes { interruptions, ..Wishes::default() });
    assert!(text.starts_with("page 0x1000 of the guest's hashes was refused"), "{text}");
}

#[rstest]
#[case::no_asid(
    Wishes { no_asid: true, ..Wishes::default() },
    "the processor has no ASID for another SEV-SNP guest: end one, or raise the number of them in the BIOS"
)]
#[case::old_kernel(
    Wishes { lacks: Some(Capability::GuestMemfd), ..Wishes::default() },
    "SEV-SNP is not possible on this host: KVM lacks KVM_CAP_GUEST_MEMFD; `nacre check` says more"
)]
#[case::policy(
    Wishes { start_fails: Some(7), ..Wishes::default() },
    "policy 0x30000 was refused: firmware status 0x7, policy failure; `nacre check` shows which bits this host allows"
)]
#[case::resources(
    Wishes { start_fails: Some(0x17), ..Wishes::default() },
    "the firmware refused the guest: firmware status 0x17, resource limit"
)]
#[case::page(
    Wishes { interruptions: vec![SevError { errno: Errno::EIO, firmware: 0x1a }], ..Wishes::default() },
    "page 0x1000 of the guest's hashes was refused: firmware status 0x1a, invalid state of a page"
)]
#[case::cpuid(
    Wishes { wants: Some((7, 0x55)), ..Wishes::default() },
    "the firmware refused CPUID values: leaf 0x7.0 ECX is 0x7, 0x55 is expected"
)]
fn a_refusal_says_what_was_refused_and_why(#[case] wishes: Wishes, #[case] text: &str) {
    assert_eq!(refusal(wishes), text);
}

#[test]
fn a_policy_that_kvm_does_not_take_is_named() {
    let policy = Policy::new(0x12_0000).unwrap();
    let (stage0, kernel) = (vec![0x90; 0x1000], kernel_file());
    let files = GuestFiles {
        stage0: &stage0,
        kernel: &kernel,
        initrd: b"",
        kernel_parameters: "",
        known: KnownHashes::default(),
    };
    let plan = Guest::new(Tee::Snp, &files).unwrap().plan(1, 64, policy).unwrap();
    let text = launch(&Arc::new(Model::default()), &plan, 1).unwrap_err().to_string();
    assert!(text.starts_with("policy 0x120000 was refused: "), "{text}");
}

#[rstest]
#[case::knows(false)]
#[case::does_not(true)]
fn a_kernel_is_told_to_ask_for_certificates_if_it_knows_how(#[case] no_certificates: bool) {
    let model = Arc::new(Model::new(Wishes { no_certificates, ..Wishes::default() }));
    let launch = Launch::begin(Arc::clone(&model)).unwrap();
    assert_eq!(launch.hand_over_certificates().unwrap(), !no_certificates);
    assert_eq!(model.asks_for_certificates(), !no_certificates);
}

#[test]
fn an_id_block_reaches_the_firmware_whole() {
    let plan = plan(2);
    let (key, author) = (IdKey::generate(), IdKey::generate());
    let block = IdBlock::new(plan.measurement(), plan.policy());
    for author in [None, Some(&author)] {
        let model = Arc::new(Model::default());
        let plan = plan.clone().with_id_block(block.sign(&key, author)).unwrap();
        launch(&model, &plan, 2).unwrap();
        assert!(model.finished().unwrap().id_block);
    }
}

#[test]
fn cpus_that_were_not_planned_are_refused() {
    let text = launch(&Arc::new(Model::default()), &plan(1), 2).unwrap_err().to_string();
    assert_eq!(text, "the plan is for 1 CPUs, 2 were made");
}

#[test]
fn overlapping_memory_is_refused() {
    let (mut regions, _mappings) = regions();
    regions.push(regions[0]);
    let (model, errno) = (Arc::new(Model::default()), Errno::EEXIST);
    let refused = Launch::begin(Arc::clone(&model)).unwrap().add_memory(&regions).unwrap_err();
    assert!(matches!(refused, SnpError::Kernel("KVM_SET_USER_MEMORY_REGION2", found) if found == errno));
}

/// A machine with memory and one CPU, whose launch has started.
fn started() -> (Arc<Model>, Vec<Mapping>) {
    let model = Arc::new(Model::default());
    let (regions, mappings) = regions();
    Launch::begin(Arc::clone(&model)).unwrap().add_memory(&regions).unwrap().create_cpus(1).unwrap();
    model.set_cpu(&0, 0, &CpuState::stage0_snp(0)).unwrap();
    let start = kvm_sev_snp_launch_start { policy: 0x3_0000, ..Default::default() };
    model.sev(Command::LaunchStart(&start)).unwrap();
    (model, mappings)
}

fn page() -> (Mapping, kvm_sev_snp_launch_update) {
    let mapping = Mapping::zeros(4096).unwrap();
    let update = kvm_sev_snp_launch_update {
        gfn_start: 0x10,
        uaddr: mapping.address(),
        len: 4096,
        type_: 1,
        ..Default::default()
    };
    (mapping, update)
}

/// What the types of a launch do not let us write, the model refuses as KVM does: it is no test of ours that passes by
/// a model that takes everything.
#[test]
fn the_model_refuses_a_wrong_order() {
    let invalid = Err(error(Errno::EINVAL, u32::MAX));
    let model = Model::default();
    let start = kvm_sev_snp_launch_start { policy: 0x3_0000, ..Default::default() };
    let finish = kvm_sev_snp_launch_finish::default();
    let init = kvm_sev_init { ghcb_version: 2, ..Default::default() };
    let (_mapping, mut update) = page();
    assert_eq!(model.sev(Command::LaunchStart(&start)), Err(error(Errno::ENOTTY, u32::MAX)));
    model.sev(Command::Init2(&init)).unwrap();
    assert_eq!(model.sev(Command::Init2(&init)), invalid);
    assert_eq!(model.sev(Command::LaunchUpdate(&mut update)), invalid);
    assert_eq!(model.sev(Command::LaunchFinish(&finish)), invalid);
    model.sev(Command::LaunchStart(&start)).unwrap();
    assert_eq!(model.sev(Command::LaunchStart(&start)), invalid);
    // No memory is there.
    assert_eq!(model.sev(Command::LaunchUpdate(&mut update)), invalid);

    let (model, _mappings) = started();
    model.sev(Command::LaunchFinish(&finish)).unwrap();
    assert_eq!(model.sev(Command::LaunchFinish(&finish)), invalid);
    assert_eq!(model.sev(Command::LaunchUpdate(&mut update)), invalid);
}

#[rstest]
#[case::nothing(|update: &mut kvm_sev_snp_launch_update| update.len = 0)]
#[case::part_of_a_page(|update: &mut kvm_sev_snp_launch_update| update.len = 100)]
#[case::no_source(|update: &mut kvm_sev_snp_launch_update| update.uaddr = 0)]
#[case::unaligned_source(|update: &mut kvm_sev_snp_launch_update| update.uaddr += 8)]
#[case::an_address_for_a_frame(|update: &mut kvm_sev_snp_launch_update| update.gfn_start = 0x1_0000_0000)]
#[case::outside(|update: &mut kvm_sev_snp_launch_update| update.gfn_start = 0xd_0000)]
#[case::over_the_end(|update: &mut kvm_sev_snp_launch_update| { update.gfn_start = 0x3fff; update.len = 8192 })]
#[case::cpu_state(|update: &mut kvm_sev_snp_launch_update| update.type_ = 2)]
#[case::unknown_type(|update: &mut kvm_sev_snp_launch_update| update.type_ = 7)]
#[case::flags(|update: &mut kvm_sev_snp_launch_update| update.flags = 1)]
#[case::padding(|update: &mut kvm_sev_snp_launch_update| update.pad2[3] = 1)]
fn the_model_refuses_a_wrong_page(#[case] change: impl Fn(&mut kvm_sev_snp_launch_update)) {
    let (model, _mappings) = started();
    let (_mapping, mut update) = page();
    change(&mut update);
    assert_eq!(model.sev(Command::LaunchUpdate(&mut update)), Err(error(Errno::EINVAL, u32::MAX)));
}

#[test]
fn the_model_refuses_a_page_that_is_shared_or_was_added() {
    let (model, _mappings) = started();
    let (_mapping, update) = page();
    let add = || model.sev(Command::LaunchUpdate(&mut update.clone()));
    let range = AddressRange::new(0x1_0000, 0x1000).unwrap();
    model.memory().set_private(range, false).unwrap();
    assert_eq!(add(), Err(error(Errno::EINVAL, u32::MAX)));
    model.memory().set_private(range, true).unwrap();
    assert_eq!(add(), Ok(()));
    assert_eq!(add(), Err(error(Errno::EIO, u32::MAX)));
}

#[test]
fn the_model_refuses_another_measurement_policy_or_signature() {
    let key = IdKey::generate();
    let finish = |measurement, policy, spoil: bool| {
        let (model, _mappings) = started();
        let signed = IdBlock::new(measurement, policy).sign(&key, None);
        let (block, mut authentication) =
            (signed.block().as_bytes().to_vec(), signed.authentication_bytes().to_vec());
        authentication[0x40] ^= u8::from(spoil);
        let command = kvm_sev_snp_launch_finish {
            id_block_en: 1,
            id_block_uaddr: block.as_ptr() as u64,
            id_auth_uaddr: authentication.as_ptr() as u64,
            ..Default::default()
        };
        model.sev(Command::LaunchFinish(&command)).map_err(|error| error.firmware)
    };
    let mut digest = nacre_launch::LaunchDigest::new().into_cpus();
    digest = digest.add_cpu(&CpuState::stage0_snp(0));
    let right = digest.finish();
    assert_eq!(finish(right, Policy::default(), false), Ok(()));
    assert_eq!(finish(Measurement([0; 48]), Policy::default(), false), Err(0xb));
    assert_eq!(finish(right, Policy::new(0xb_0000).unwrap(), false), Err(7));
    assert_eq!(finish(right, Policy::default(), true), Err(0xa));
}

#[test]
fn the_cpuid_page_says_what_the_firmware_takes() {
    use kvm_bindings::kvm_cpuid_entry2;
    let entry = |function, index, [eax, ebx, ecx, edx]: [u32; 4]| kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    let ones = [u32::MAX; 4];
    let list = adjust_cpuid(&[
        entry(1, 0, ones),
        entry(7, 0, ones),
        entry(7, 1, [0; 4]),
        entry(0xd, 1, ones),
        entry(0xd, 2, ones),
        entry(0x8000_0008, 0, ones),
        entry(0x8000_001f, 0, [0, 0x1_0000, 1, 1]),
        entry(0x8000_0021, 0, ones),
        entry(0x8000_0026, 0, ones),
        entry(0x4000_0000, 0, ones),
    ]);
    let page = build_cpuid_page(&list).unwrap();
    let find = |leaf, index| page.find(leaf, index).unwrap();
    assert_eq!(page.count, 8);
    assert_eq!(find(1, 0).ecx, !(1 << 24));
    assert_eq!((find(7, 0).ebx, find(7, 0).edx), (!2, 0x03ff_ffff));
    assert_eq!((find(0xd, 1).ebx, find(0xd, 1).xcr0_in), (0x240, 1));
    assert_eq!((find(0xd, 2).ebx, find(0xd, 2).xcr0_in), (u32::MAX, 0));
    assert_eq!(find(0x8000_0008, 0).ebx, !(1 << 25));
    let encryption = find(0x8000_001f, 0);
    assert_eq!((encryption.eax, encryption.ebx, encryption.ecx, encryption.edx), (0x1a, 51, 0, 0));
    assert_eq!((find(0x8000_0021, 0).eax, find(0x8000_0021, 0).ecx), (!(1 << 9), 0));
    assert!(page.find(0x8000_0026, 0).is_none() && page.find(7, 1).is_none());
    assert_eq!(find(0x4000_0000, 0).eax, u32::MAX);
    let many = vec![entry(1, 0, ones); 65];
    assert_eq!(build_cpuid_page(&many).unwrap_err().to_string(), "65 CPUID values, the firmware takes 64");
}
