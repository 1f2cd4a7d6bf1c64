//! Confidential technologies. Pods run without them, but are not confidential.

use std::path::Path;

use kvm_ioctls::Kvm;
use nacre_configuration::sections::Confidential;
use nacre_configuration::values::Tee;
use nacre_launch::Policy;

use super::{Finding, snp};

/// `KVM_CAP_VM_TYPES`, a bit for each type of VM that can be made, and the type (Linux, uapi/linux/kvm.h and
/// uapi/asm/kvm.h for x86).
const CAP_VM_TYPES: libc::c_ulong = 235;
const TDX_VM: u32 = 5;

/// What pods are configured for, SNP and TDX.
pub fn findings(tee: Tee, confidential: &Confidential) -> Vec<Finding> {
    let types = Kvm::new().map_or(0, |kvm| kvm.check_extension_raw(CAP_VM_TYPES));
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let tdx = Facts {
        processor: cpuinfo.split_whitespace().any(|word| word == "tdx_host_platform"),
        kvm: types & (1 << TDX_VM) != 0,
    };
    // With a policy that is impossible, which the configuration's line is about, the rest is judged by the default.
    let policy = Policy::new(confidential.policy.bits()).unwrap_or_default();
    let needed_for = |technology, finding: Finding| {
        if tee == technology { finding } else { finding.not_needed() }
    };
    let snp = snp::Host::look().findings(policy);
    let mut list = vec![configured(tee, &confidential.simulated_key)];
    list.extend(snp.into_iter().map(|finding| needed_for(Tee::Snp, finding)));
    list.push(needed_for(Tee::Tdx, judge_tdx(tdx)));
    list
}

/// What pods get. Only the hardware's technologies are confidential.
fn configured(tee: Tee, simulated_key: &Path) -> Finding {
    let name = "pods";
    let found = format!("vm.tee = \"{}\"", tee.name());
    match tee {
        Tee::Snp | Tee::Tdx => Finding::ok(name, found),
        Tee::None => Finding::ok(name, format!("{found}: virtual machines, not confidential")),
        Tee::Simulated if simulated_key.exists() => {
            Finding::ok(name, format!("{found}: for tests, NOT CONFIDENTIAL"))
        }
        Tee::Simulated => Finding::ok(name, format!("{found}: for tests, NOT CONFIDENTIAL")).but(format!(
            "{} is not there: without it there are no reports; run nacre keys",
            simulated_key.display()
        )),
    }
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    /// The processor's flag.
    processor: bool,
    /// KVM can make such a VM.
    kvm: bool,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    #[test]
    fn what_is_not_configured_is_not_needed() {
        let needed = |tee, name| {
            let findings = findings(tee, &Confidential::default());
            findings.iter().find(|finding| finding.name == name).unwrap().needed
        };
        assert!(!needed(Tee::None, "AMD SEV-SNP") && !needed(Tee::Simulated, "Intel TDX"));
        assert!(needed(Tee::Snp, "AMD SEV-SNP") && !needed(Tee::Snp, "Intel TDX"));
        assert!(needed(Tee::Tdx, "Intel TDX"));
    }

    #[test]
    fn kvm_decides() {
        let all = Facts { processor: true, kvm: true };
        assert_eq!(judge_tdx(all).state, State::Ok);
        assert_eq!(judge_tdx(Facts { kvm: false, ..all }).state, State::Missing);
    }

    #[test]
    fn only_hardware_is_confidential() {
        let key = tempfile::NamedTempFile::new().unwrap();
        let found = |tee| configured(tee, key.path()).found;
        assert!(found(Tee::Simulated).contains("NOT CONFIDENTIAL"));
        assert!(found(Tee::None).contains("not confidential"));
        assert!(!found(Tee::Snp).to_lowercase().contains("not confidential"));
        let advice = |path| configured(Tee::Simulated, path).to_do;
        assert_eq!(advice(key.path()), None);
        assert!(advice(Path::new("/no/key")).unwrap().contains("nacre keys"));
    }
}
