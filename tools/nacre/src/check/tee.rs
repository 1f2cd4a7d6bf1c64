//! Confidential technologies. Pods run without them, but are not confidential.

use std::path::Path;

use nacre_configuration::sections::Confidential;
use nacre_configuration::values::{SimulatedPlatform, Tee};
use nacre_launch::Policy;

use super::{Finding, snp, tdx};

/// What pods are configured for, SNP and TDX.
pub fn findings(tee: Tee, confidential: &Confidential) -> Vec<Finding> {
    // With a policy that is impossible, which the configuration's line is about, the rest is judged by the default.
    let policy = Policy::new(confidential.policy.bits()).unwrap_or_default();
    let needed_for = |technology, finding: Finding| {
        if tee == technology { finding } else { finding.not_needed() }
    };
    let snp = snp::Host::look().findings(policy);
    let key = match confidential.simulated_platform {
        SimulatedPlatform::Snp => &confidential.simulated_key,
        SimulatedPlatform::Tdx => &confidential.simulated_tdx_key,
    };
    let mut list = vec![configured(tee, key)];
    list.extend(snp.into_iter().map(|finding| needed_for(Tee::Snp, finding)));
    let tdx = tdx::Host::look(&confidential.quote_service).findings();
    // What is not needed even for TDX stays so.
    list.extend(tdx.into_iter().map(|finding| needed_for(Tee::Tdx, finding)));
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

#[cfg(test)]
mod tests {
    use super::*;

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
