//! Confidential technologies. Pods run without them, but are not confidential.

use std::path::Path;

use kvm_ioctls::Kvm;

use super::Finding;

/// `KVM_CAP_VM_TYPES`, a bit for each type of VM that can be made, and the types (Linux, uapi/linux/kvm.h and
/// uapi/asm/kvm.h for x86).
const CAP_VM_TYPES: libc::c_ulong = 235;
const SNP_VM: u32 = 4;
const TDX_VM: u32 = 5;

/// SNP and TDX.
pub fn findings() -> [Finding; 2] {
    let types = Kvm::new().map_or(0, |kvm| kvm.check_extension_raw(CAP_VM_TYPES));
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = |flag: &str| cpuinfo.split_whitespace().any(|word| word == flag);
    let snp = Facts {
        processor: processor("sev_snp"),
        kvm: types & (1 << SNP_VM) != 0,
        device: Path::new("/dev/sev").exists(),
    };
    let tdx =
        Facts { processor: processor("tdx_host_platform"), kvm: types & (1 << TDX_VM) != 0, device: true };
    [judge_snp(snp), judge_tdx(tdx)]
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    /// The processor's flag.
    processor: bool,
    /// KVM can make such a VM.
    kvm: bool,
    /// The device of its firmware is there, if it has one.
    device: bool,
}

fn judge_snp(facts: Facts) -> Finding {
    let name = "AMD SEV-SNP";
    match facts {
        Facts { kvm: true, device: true, .. } => Finding::ok(name, "KVM can make such virtual machines"),
        Facts { kvm: true, device: false, .. } => {
            Finding::missing(name, "/dev/sev is not there", "load the module: modprobe ccp")
        }
        Facts { processor: true, .. } => Finding::missing(
            name,
            "the processor has it, KVM does not",
            "boot a kernel 6.11 or later; switch on SEV-SNP, SNP memory coverage (RMP table) and the IOMMU\n\
             in the firmware; load kvm_amd with sev=1 sev_es=1 sev_snp=1",
        ),
        Facts { processor: false, .. } => Finding::missing(
            name,
            "the processor does not show it",
            "needs an EPYC of the 3rd generation (Milan) or later, with SEV-SNP switched on in the firmware",
        ),
    }
    .not_needed()
}

fn judge_tdx(facts: Facts) -> Finding {
    let name = "Intel TDX";
    match facts {
        Facts { kvm: true, .. } => Finding::ok(name, "KVM can make such virtual machines"),
        Facts { processor: true, .. } => Finding::missing(
            name,
            "the processor has it, KVM does not",
            "boot a kernel 6.16 or later with kvm_intel.tdx=1; switch on TDX and its module in the firmware",
        ),
        Facts { processor: false, .. } => Finding::missing(
            name,
            "the processor does not show it",
            "needs a Xeon of the 5th generation or later, with TDX switched on in the firmware",
        ),
    }
    .not_needed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    const NOTHING: Facts = Facts { processor: false, kvm: false, device: false };

    #[test]
    fn nothing_confidential_is_needed() {
        assert!(!judge_snp(NOTHING).needed && !judge_tdx(NOTHING).needed);
    }

    #[test]
    fn kvm_decides() {
        let all = Facts { processor: true, kvm: true, device: true };
        assert_eq!((judge_snp(all).state, judge_tdx(all).state), (State::Ok, State::Ok));
        let without_kvm = Facts { kvm: false, ..all };
        assert_eq!(
            (judge_snp(without_kvm).state, judge_tdx(without_kvm).state),
            (State::Missing, State::Missing)
        );
        assert_eq!(judge_snp(Facts { device: false, ..all }).state, State::Missing);
    }
}
