//! A guest's request to be ended, by the GHCB's MSR protocol.

use nacre_control::StopReason;
use nacre_stage0_abi::stop::Stop;

/// Reason set 0: the specification's (56421, section 2.3.1).
const GENERAL: u8 = 0;
/// Reason set 1: Linux's (`arch/x86/include/asm/sev-common.h`).
const LINUX: u8 = 1;

/// What the MSR's value asks for.
#[must_use]
pub fn termination(value: u64) -> StopReason {
    let [_, low, code, ..] = value.to_le_bytes();
    let set = low >> 4;
    if let Some(stop) = Stop::from_codes(set, code) {
        let (stage, stage_name) = (stop.stage(), stop.stage_name().to_owned());
        return StopReason::Stage0 { stage, stage_name, code, why: stop.to_string() };
    }
    let why = match (set, code) {
        (GENERAL, 0) => "no reason given",
        (GENERAL, 1) => "it does not know KVM's version of the GHCB protocol",
        (GENERAL, 2) => "it needs features of SEV-SNP that the host does not have",
        (LINUX, 0) => "the kernel could not register its GHCB",
        (LINUX, 1) => "a page could not be converted",
        (LINUX, 2) => "a page could not be validated",
        (LINUX, 3) => "the kernel does not run at VMPL0",
        (LINUX, 4) => "the CPUID page is wrong",
        (LINUX, 5) => "the hypervisor's CPUID answer is wrong",
        (LINUX, 6) => "the secrets page is wrong",
        (LINUX, 7) => "there is no SVSM",
        _ => "a code that this version does not know",
    };
    StopReason::Terminated { set, code, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage0s_kernels_and_other_codes_are_told_apart() {
        let text = |value| termination(value).to_string();
        assert!(
            text(u64::from(Stop::InitrdHash.ghcb_request()))
                .contains("the initrd is not the one that was measured")
        );
        assert_eq!(
            text(0x2_1100),
            "the guest ended itself with reason set 1, code 2: a page could not be validated"
        );
        assert!(text(0xff_f100).contains("does not know"));
    }
}
