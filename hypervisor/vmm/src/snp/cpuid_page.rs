//! The page of CPUID values, which the firmware compares with the processor's.
//!
//! The values must be those that KVM has for the CPUs: it answers the guest's other questions from them. So the list of
//! KVM's is adjusted first, and the page is made from the result.

use std::fmt;

use kvm_bindings::kvm_cpuid_entry2;
use nacre_stage0_abi::snp::{CpuidFunction, CpuidPage};
use zerocopy::FromZeros;

/// State that every processor has at its reset: x87 only.
const XCR0_AT_RESET: u64 = 1;
/// The size of the area for x87, SSE and the header: what is enabled at reset.
const XSAVE_AT_RESET: u32 = 0x240;
const ENCRYPTION_BIT: u32 = 51;
const SEV: u32 = 1 << 1;
const SEV_ES: u32 = 1 << 3;
const SEV_SNP: u32 = 1 << 4;

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CpuidError {
    /// The firmware takes fewer values.
    #[error("{0} CPUID values, the firmware takes {max}", max = CpuidPage::MAX_FUNCTIONS)]
    TooMany(usize),
}

/// Changes KVM's values to those that the firmware takes. What is all zero is left out: so is what is not listed.
#[must_use]
pub fn adjust(entries: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let adjusted = entries.iter().filter_map(|entry| adjust_one(*entry));
    adjusted.filter(|entry| entry.eax | entry.ebx | entry.ecx | entry.edx != 0).collect()
}

fn adjust_one(mut entry: kvm_cpuid_entry2) -> Option<kvm_cpuid_entry2> {
    match (entry.function, entry.index) {
        (0x1, _) => {
            // No TSC deadline timer, a hypervisor.
            entry.ecx = entry.ecx & !(1 << 24) | 1 << 31;
        }
        (0x7, 0) => {
            // No TSC_ADJUST.
            entry.ebx &= !(1 << 1);
            // No SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD.
            entry.edx &= !(0x3f << 26);
        }
        (0xd, 0 | 1) => entry.ebx = XSAVE_AT_RESET,
        // No VIRT_SSBD.
        (0x8000_0008, _) => entry.ebx &= !(1 << 25),
        (0x8000_001f, _) => {
            entry.eax |= SEV | SEV_ES | SEV_SNP;
            // The position of the encryption bit; how many address bits it takes stays.
            entry.ebx = entry.ebx & 0xfc0 | ENCRYPTION_BIT;
            entry.ecx = 0;
            entry.edx = 0;
        }
        (0x8000_0021, _) => {
            // No NO_SMM_CTL_MSR.
            entry.eax &= !(1 << 9);
            entry.ecx = 0;
        }
        (0x8000_0026, _) => return None,
        _ => {}
    }
    Some(entry)
}

/// The page that says what KVM's adjusted list says.
///
/// # Errors
/// There are too many values.
pub fn build(entries: &[kvm_cpuid_entry2]) -> Result<CpuidPage, CpuidError> {
    let mut page = CpuidPage::new_zeroed();
    if entries.len() > CpuidPage::MAX_FUNCTIONS {
        return Err(CpuidError::TooMany(entries.len()));
    }
    for (place, entry) in page.functions.iter_mut().zip(entries) {
        // Sizes of state depend on what is enabled.
        let xcr0_in = if entry.function == 0xd && entry.index <= 1 { XCR0_AT_RESET } else { 0 };
        *place = CpuidFunction {
            eax_in: entry.function,
            ecx_in: entry.index,
            xcr0_in,
            xss_in: 0,
            eax: entry.eax,
            ebx: entry.ebx,
            ecx: entry.ecx,
            edx: entry.edx,
            reserved: 0,
        };
        page.count += 1;
    }
    Ok(page)
}

/// A value that the firmware wants otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    function: u32,
    index: u32,
    register: &'static str,
    ours: u32,
    firmwares: u32,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, index, register, ours, firmwares } = self;
        write!(formatter, "leaf {function:#x}.{index} {register} is {ours:#x}, {firmwares:#x} is expected")
    }
}

/// What the firmware changed in a page that it refused.
#[must_use]
pub fn differences(ours: &CpuidPage, firmwares: &CpuidPage) -> Vec<Difference> {
    let pairs = ours.functions.iter().zip(&firmwares.functions);
    pairs
        .flat_map(|(one, other)| {
            let registers = [
                ("EAX", one.eax, other.eax),
                ("EBX", one.ebx, other.ebx),
                ("ECX", one.ecx, other.ecx),
                ("EDX", one.edx, other.edx),
            ];
            let (function, index) = (one.eax_in, one.ecx_in);
            let changed = registers.into_iter().filter(|(_, ours, firmwares)| ours != firmwares);
            changed.map(move |(register, ours, firmwares)| Difference {
                function,
                index,
                register,
                ours,
                firmwares,
            })
        })
        .collect()
}
