//! Microsoft's `igvm` crate computes the same measurement from the same pages.

#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "foreign/dumps.rs"]
mod dumps;
mod fixture;

use std::io::Write;

use dumps::Dump;
use igvm::measurement::{generate_snp_measurement, generate_tdx_measurement};
use igvm::snp_defs::{SevSelector, SevVmsa};
use igvm::{IgvmDirectiveHeader, IgvmInitializationHeader};
use igvm_defs::{IgvmPageDataFlags, IgvmPageDataType};
use nacre_launch::{LaunchPlan, Measurement, PageKind, Policy};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const MASK: u32 = 1;

/// CPU `index` at stage0's entry, in igvm's words.
fn cpu(index: u64) -> SevVmsa {
    let selector = |attrib, limit| SevSelector { selector: 0, attrib, limit, base: 0 };
    let data = selector(0xc93, u32::MAX);
    SevVmsa {
        es: data,
        cs: selector(0xc9b, u32::MAX),
        ss: data,
        ds: data,
        fs: data,
        gs: data,
        gdtr: selector(0, 0xffff),
        ldtr: selector(0x82, 0xffff),
        idtr: selector(0, 0xffff),
        tr: selector(0x8b, 0xffff),
        efer: 0x1000,
        cr4: 0x40,
        cr0: 0x31,
        dr7: 0x400,
        dr6: 0xffff_0ff0,
        rflags: 2,
        rip: 0xffff_fff0,
        pat: 0x0007_0406_0007_0406,
        rsi: index,
        rdi: 0x50_4e53,
        sev_features: 1.into(),
        xcr0: 1,
        mxcsr: 0x1f80,
        x87_fcw: 0x37f,
        ..SevVmsa::new_zeroed()
    }
}

fn directives(plan: &LaunchPlan) -> Vec<IgvmDirectiveHeader> {
    let mut list = pages(plan);
    for index in 0..u16::try_from(plan.cpus().len()).unwrap() {
        list.push(IgvmDirectiveHeader::SnpVpContext {
            gpa: 0xffff_ffff_f000,
            compatibility_mask: MASK,
            vp_index: index,
            vmsa: Box::new(cpu(index.into())),
        });
    }
    list
}

fn pages(plan: &LaunchPlan) -> Vec<IgvmDirectiveHeader> {
    let mut list = Vec::new();
    for range in plan.pages() {
        let data_type = match range.kind() {
            PageKind::Secrets => IgvmPageDataType::SECRETS,
            PageKind::Cpuid => IgvmPageDataType::CPUID_DATA,
            _ => IgvmPageDataType::NORMAL,
        };
        let flags = IgvmPageDataFlags::new().with_unmeasured(range.kind() == PageKind::Unmeasured);
        for (gpa, page) in range.pages() {
            let data = page.to_vec();
            list.push(IgvmDirectiveHeader::PageData {
                gpa,
                compatibility_mask: MASK,
                flags,
                data_type,
                data,
            });
        }
    }
    list
}

/// The pages and CPUs of a dump, of which nothing but the files is known.
fn dumped(dump: &Dump) -> Vec<IgvmDirectiveHeader> {
    let mut list = Vec::new();
    for entry in dump.entries() {
        let (data_type, unmeasured) = match entry.kind.as_str() {
            "vmsa" => {
                list.push(dumped_cpu(entry.gpa, &entry.bytes, list.len()));
                continue;
            }
            "normal" | "zero" | "measured" => (IgvmPageDataType::NORMAL, false),
            "unmeasured" | "added" => (IgvmPageDataType::NORMAL, true),
            "secrets" => (IgvmPageDataType::SECRETS, false),
            "cpuid" => (IgvmPageDataType::CPUID_DATA, false),
            other => panic!("unknown kind {other}"),
        };
        for (gpa, page) in (entry.gpa..).step_by(4096).zip(entry.bytes.chunks(4096)) {
            list.push(IgvmDirectiveHeader::PageData {
                gpa,
                compatibility_mask: MASK,
                flags: IgvmPageDataFlags::new().with_unmeasured(unmeasured),
                data_type,
                data: page.to_vec(),
            });
        }
    }
    list
}

fn dumped_cpu(gpa: u64, page: &[u8], index: usize) -> IgvmDirectiveHeader {
    let (vmsa, rest) = SevVmsa::read_from_prefix(page).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0), "igvm measures zeros there");
    let vp_index = u16::try_from(index).unwrap();
    IgvmDirectiveHeader::SnpVpContext { gpa, compatibility_mask: MASK, vp_index, vmsa: Box::new(vmsa) }
}

fn snp(policy: Policy, directives: &[IgvmDirectiveHeader]) -> [u8; 48] {
    let policy = IgvmInitializationHeader::GuestPolicy { policy: policy.bits(), compatibility_mask: MASK };
    generate_snp_measurement(&[policy], directives, MASK).unwrap()
}

/// Measures the dumps of the real guest for this technology; without any, says so.
fn each_dump(tee: &str, measure: impl Fn(&[IgvmDirectiveHeader]) -> [u8; 48]) {
    let dumps = match dumps::of(tee) {
        Ok(dumps) => dumps,
        Err(why) => {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let _ = writeln!(std::io::stderr(), "NOT RUN HERE {name}: {why}");
            return;
        }
    };
    assert_eq!(dumps.iter().map(|dump| dump.vcpus).collect::<Vec<_>>(), fixture::VCPUS.map(u64::from));
    for dump in dumps {
        let foreign = Measurement(measure(&dumped(&dump))).to_string();
        assert_eq!(foreign, dump.measurement, "{tee} with {} vCPUs", dump.vcpus);
    }
}

#[test]
fn igvm_measures_the_real_guest_as_nacre_measure_does() {
    each_dump("snp", |directives| snp(Policy::default(), directives));
}

#[test]
fn igvm_measures_the_real_tdx_guest_as_nacre_measure_does() {
    each_dump("tdx", |directives| generate_tdx_measurement(directives, MASK).unwrap());
}

#[test]
fn igvm_measures_what_we_measure() {
    for vcpus in fixture::VCPUS {
        let plan = fixture::plan(vcpus);
        let foreign = snp(plan.policy(), &directives(&plan));
        assert_eq!(foreign, plan.measurement().0, "{vcpus} vCPUs");
    }
}

#[test]
fn igvm_measures_a_tdx_guest_as_we_do() {
    let mut seen = Vec::new();
    for vcpus in fixture::VCPUS {
        let plan = fixture::tdx_plan(vcpus);
        assert!(plan.pages().iter().any(|range| range.kind() == PageKind::Unmeasured));
        let foreign = generate_tdx_measurement(&pages(&plan), MASK).unwrap();
        assert_eq!(foreign, plan.measurement().0, "{vcpus} vCPUs");
        assert!(!seen.contains(&foreign), "the number of vCPUs is measured");
        seen.push(foreign);
    }
}

#[test]
fn igvm_has_the_same_page_for_a_cpu_at_stage0s_entry() {
    for index in [0, 7] {
        let ours = nacre_launch::abi::Vmsa::from(&nacre_launch::CpuState::stage0_snp(index));
        let foreign = cpu(index.into());
        let (used, rest) = ours.as_bytes().split_at(foreign.as_bytes().len());
        assert_eq!(used, foreign.as_bytes());
        assert!(rest.iter().all(|byte| *byte == 0));
    }
}
