//! What a host needs for SEV-SNP guests, one thing after the other.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use kvm_bindings::{KVM_CAP_VM_TYPES, KVM_X86_SEV_VMSA_FEATURES, KVM_X86_SNP_VM};
use kvm_ioctls::Kvm;
use nacre_launch::Policy;
use sev::firmware::host::Firmware;

use super::Finding;
use super::limited::Limited;
use super::{kernel, unsafe_attributes};

/// `KVM_X86_SNP_POLICY_BITS` (Linux, uapi/asm/kvm.h for x86), which kvm-bindings does not have.
const SNP_POLICY_BITS: u32 = 1;
/// The first Linux with SEV-SNP guests.
const OLDEST: (u32, u32) = (6, 11);
/// The lowest version of the firmware's interface with which Linux initialises SEV-SNP (drivers/crypto/ccp/sev-dev.c).
const LEAST_INTERFACE: (u8, u8) = (1, 51);

/// What was found on a host.
#[derive(Debug)]
pub struct Host {
    /// The processor shows the flag.
    processor: bool,
    release: String,
    /// The parameter of KVM's module, if that is loaded.
    parameter: Option<String>,
    device: io::Result<()>,
    asids: Option<Limited>,
    kvm: Offers,
    /// What the firmware says of itself, if it can be asked.
    firmware: Option<Result<Interface, String>>,
}

/// What KVM offers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offers {
    /// It makes such machines.
    machines: bool,
    /// The bits of a policy that it takes. Older kernels, 6.12 among them, don't tell.
    policy: Option<u64>,
    /// The features of a CPU's state that it takes.
    vmsa_features: Option<u64>,
}

/// The firmware's version.
#[derive(Debug, Clone, Copy)]
struct Interface {
    version: (u8, u8),
    build: u32,
}

impl Host {
    /// This host.
    pub fn look() -> Self {
        let mut host = Self::read(Path::new("/"), Offers::of_kvm());
        host.firmware = host.device.is_ok().then(Interface::ask);
        host
    }

    /// The host whose files are there.
    fn read(root: &Path, kvm: Offers) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        Self {
            processor: cpuinfo.split_whitespace().any(|word| word == "sev_snp"),
            release: text("proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            parameter: text("sys/module/kvm_amd/parameters/sev_snp").map(|text| text.trim().to_owned()),
            device: File::options().read(true).write(true).open(root.join("dev/sev")).map(drop),
            // Guests with SEV-SNP count as those with SEV-ES: both have numbers below the others'.
            asids: Limited::read(root, "sev_es"),
            kvm,
            firmware: None,
        }
    }

    /// What to say about it, for guests of this policy. A host that has nothing of it gets one line.
    pub fn findings(&self, policy: Policy) -> Vec<Finding> {
        let mut list = vec![self.summary()];
        if self.processor || self.kvm.machines {
            list.extend([self.kernel(), self.module(), self.sev_device()]);
            list.extend(self.asids.map(free));
            if self.kvm.machines {
                list.extend([self.policy(policy), self.vmsa_features()]);
            }
            list.extend(self.firmware.as_ref().map(|firmware| judge_firmware(firmware, policy)));
        }
        list
    }

    fn summary(&self) -> Finding {
        let name = "AMD SEV-SNP";
        match (self.kvm.machines, self.processor) {
            (true, _) => Finding::ok(name, "KVM can make such virtual machines"),
            (false, true) => Finding::missing(
                name,
                "the processor has it, KVM does not",
                "see the next lines; also switch on SEV-SNP, SNP memory coverage (RMP table) and the IOMMU in the\n\
                 firmware",
            ),
            (false, false) => Finding::missing(
                name,
                "the processor does not show it",
                "needs an EPYC of the 3rd generation (Milan) or later, with SEV-SNP switched on in the firmware",
            ),
        }
    }

    fn kernel(&self) -> Finding {
        kernel::at_least("SNP kernel", &self.release, OLDEST, "CONFIG_KVM_AMD_SEV")
    }

    fn module(&self) -> Finding {
        let name = "SNP module";
        let to_do = "load it with all of them: modprobe kvm_amd sev=1 sev_es=1 sev_snp=1";
        match self.parameter.as_deref() {
            Some("Y" | "1") => Finding::ok(name, "kvm_amd with sev_snp=Y"),
            Some(other) => Finding::missing(name, format!("kvm_amd with sev_snp={other}"), to_do),
            None => Finding::missing(name, "kvm_amd is not loaded, or too old for sev_snp", to_do),
        }
    }

    fn sev_device(&self) -> Finding {
        let (name, path) = ("SNP device", "/dev/sev");
        match &self.device {
            Ok(()) => Finding::ok(name, path),
            Err(error) => {
                let to_do = match error.kind() {
                    io::ErrorKind::PermissionDenied => "run this as root",
                    _ => "load the module: modprobe ccp; dmesg says why if it does not help",
                };
                Finding::missing(name, format!("{path}: {error}"), to_do)
            }
        }
    }

    fn policy(&self, policy: Policy) -> Finding {
        let name = "SNP policy";
        let Some(allowed) = self.kvm.policy else {
            // Linux 6.12, arch/x86/kvm/svm/sev.c: SMT is demanded, and nothing from SINGLE_SOCKET on is taken.
            let known = !(u64::MAX << 20);
            return match policy.bits() & !known == 0 && policy.bits() & Policy::SMT != 0 {
                true => Finding::ok(name, format!("{policy} is what every kernel with SEV-SNP takes")),
                false => Finding::missing(
                    name,
                    format!(
                        "the kernel does not say whether it takes {policy}; kernels that don't refuse it"
                    ),
                    "boot a newer kernel, or set confidential.policy = \"0x30000\"",
                ),
            };
        };
        match policy.bits() & !allowed {
            0 => Finding::ok(name, format!("{policy}; KVM takes the bits of {allowed:#x}")),
            refused => Finding::missing(
                name,
                format!("{policy} has the bits {refused:#x}, KVM takes those of {allowed:#x}"),
                "take them out of confidential.policy, or boot a newer kernel on a processor that has them",
            ),
        }
    }

    fn vmsa_features(&self) -> Finding {
        let (name, none) = ("SNP VMSA features", "a guest of nacre's needs none of them");
        match self.kvm.vmsa_features {
            Some(features) => Finding::ok(name, format!("KVM takes those of {features:#x}; {none}")),
            None => Finding::missing(
                name,
                "KVM does not tell which it takes",
                "boot a kernel 6.11 or later: older ones can't start a guest with KVM_SEV_INIT2",
            ),
        }
    }
}

fn free(asids: Limited) -> Finding {
    let (name, found) = ("SNP ASIDs", asids.text());
    match (asids.all, asids.has_more()) {
        (0, _) => Finding::missing(
            name,
            "none is set apart for SEV-ES and SEV-SNP",
            "raise \"Minimum SEV non-ES ASID\" in the firmware: guests with SEV-SNP get the numbers below it",
        ),
        (_, true) => Finding::ok(name, found),
        (_, false) => Finding::missing(
            name,
            found,
            "end a confidential guest, or raise \"Minimum SEV non-ES ASID\" in the firmware",
        ),
    }
}

fn judge_firmware(firmware: &Result<Interface, String>, policy: Policy) -> Finding {
    let name = "SNP firmware";
    let to_do = "update the host's BIOS, or the firmware in /lib/firmware/amd";
    match firmware {
        Err(why) => Finding::missing(
            name,
            format!("does not say its version: {why}"),
            "run this as root; dmesg | grep -i ccp says whether SEV-SNP was initialised",
        ),
        Ok(Interface { version: version @ (major, minor), build }) => {
            let found = format!("interface {major}.{minor}, build {build}");
            match (*version < LEAST_INTERFACE, *version < policy.least_interface()) {
                (true, _) => Finding::missing(name, format!("{found}; Linux needs 1.51"), to_do),
                (_, true) => {
                    let (major, minor) = policy.least_interface();
                    let found = format!("{found}; confidential.policy demands {major}.{minor}");
                    Finding::missing(name, found, to_do)
                }
                (false, false) => Finding::ok(name, found),
            }
        }
    }
}

impl Interface {
    fn ask() -> Result<Self, String> {
        let mut firmware = Firmware::open().map_err(|error| error.to_string())?;
        let status = firmware.snp_platform_status().map_err(|error| error.to_string())?;
        Ok(Self { version: status.version, build: status.build_id })
    }
}

impl Offers {
    fn of_kvm() -> Self {
        let Ok(kvm) = Kvm::new() else { return Self::default() };
        let types = kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()).cast_unsigned();
        // Old kernels have no such attributes.
        let attribute = |number| unsafe_attributes::get(&kvm, number).ok();
        Self {
            machines: types & 1 << KVM_X86_SNP_VM != 0,
            policy: attribute(SNP_POLICY_BITS),
            vmsa_features: attribute(KVM_X86_SEV_VMSA_FEATURES),
        }
    }
}

#[cfg(test)]
mod tests;
