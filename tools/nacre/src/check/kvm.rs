//! KVM: there, permitted, and with a processor behind it.

use kvm_ioctls::{Error, Kvm};

use super::Finding;

/// The only version that ever was in use (KVM_API_VERSION).
const API_VERSION: i32 = 12;

const DEVICE: &str = "/dev/kvm";

/// Makes a virtual machine to see whether it works.
pub fn finding() -> Finding {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    judge(kind(&cpuinfo), Kvm::new().and_then(|kvm| try_out(&kvm)))
}

/// What the processor calls its virtualisation.
fn kind(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag| flags.split_whitespace().any(|word| word == flag);
    match (has("svm"), has("vmx")) {
        (true, _) => Some("AMD SVM"),
        (_, true) => Some("Intel VMX"),
        _ => None,
    }
}

/// Whether the version is ours, after making a VM with a CPU.
fn try_out(kvm: &Kvm) -> Result<bool, Error> {
    if kvm.get_api_version() != API_VERSION {
        return Ok(false);
    }
    kvm.create_vm()?.create_vcpu(0)?;
    Ok(true)
}

fn judge(kind: Option<&str>, tried: Result<bool, Error>) -> Finding {
    let name = "KVM";
    match (tried, kind) {
        (Ok(true), Some(kind)) => Finding::ok(name, format!("{kind}, a virtual machine could be made")),
        (Ok(true), None) => Finding::missing(
            name,
            format!("{DEVICE} opens, but the processor shows neither svm nor vmx"),
            "use a machine with hardware virtualisation, or switch on nested virtualisation for this one",
        ),
        (Ok(false), _) => {
            Finding::missing(name, format!("{DEVICE} has an unknown version"), "use a current kernel")
        }
        (Err(error), kind) => {
            let to_do = match (error.errno(), kind) {
                (libc::EACCES | libc::EPERM, _) => "run this as root, which containerd's shims are too",
                (_, Some("AMD SVM")) => "load the module: modprobe kvm_amd",
                (_, Some(_)) => "load the module: modprobe kvm_intel",
                (_, None) => {
                    "switch on virtualisation in the firmware, or nested virtualisation if this is a virtual machine"
                }
            };
            Finding::missing(name, format!("{DEVICE}: {error}"), to_do)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;
    use rstest::rstest;

    #[rstest]
    #[case("processor : 0\nflags\t\t: fpu svm lm\n", Some("AMD SVM"))]
    #[case("flags : vmx\n", Some("Intel VMX"))]
    #[case("flags : svm_lock hypervisor\nbugs : vmx\n", None)]
    #[case("", None)]
    fn the_kind_is_read_from_the_flags(#[case] cpuinfo: &str, #[case] expected: Option<&str>) {
        assert_eq!(kind(cpuinfo), expected);
    }

    #[test]
    fn a_device_without_a_processor_behind_it_is_missing() {
        assert_eq!(judge(None, Ok(true)).state, State::Missing);
        assert_eq!(judge(Some("AMD SVM"), Ok(true)).state, State::Ok);
    }

    #[rstest]
    #[case(libc::EACCES, Some("AMD SVM"), "root")]
    #[case(libc::ENOENT, Some("AMD SVM"), "kvm_amd")]
    #[case(libc::ENOENT, Some("Intel VMX"), "kvm_intel")]
    #[case(libc::ENOENT, None, "firmware")]
    fn what_to_do_follows_from_the_reason(
        #[case] errno: i32,
        #[case] kind: Option<&str>,
        #[case] expected: &str,
    ) {
        let to_do = judge(kind, Err(Error::new(errno))).to_do.unwrap();
        assert!(to_do.contains(expected), "{to_do}");
    }
}
