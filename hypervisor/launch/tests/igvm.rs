//! Microsoft's `igvm` crate computes the same measurement from the same pages.

#![allow(clippy::unwrap_used)]

mod fixture;

use igvm::measurement::{generate_snp_measurement, generate_tdx_measurement};
use igvm::snp_defs::{SevSelector, SevVmsa};
use igvm::{IgvmDirectiveHeader, IgvmInitializationHeader};
use igvm_defs::{IgvmPageDataFlags, IgvmPageDataType};
use nacre_launch::{LaunchPlan, PageKind};
use zerocopy::{FromZeros, IntoBytes};

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

#[test]
fn igvm_measures_what_we_measure() {
    for vcpus in fixture::VCPUS {
        let plan = fixture::plan(vcpus);
        let policy =
            IgvmInitializationHeader::GuestPolicy { policy: plan.policy().bits(), compatibility_mask: MASK };
        let foreign = generate_snp_measurement(&[policy], &directives(&plan), MASK).unwrap();
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
