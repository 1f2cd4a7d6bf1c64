//! Why there is no SEV-SNP guest, in words.

use std::fmt;

use nacre_launch::Policy;
use nix::errno::Errno;

use super::cpuid_page::Difference;
use super::kernel::SevError;
use crate::cpu::CpuError;
use crate::private::{Capability, list};

/// Why a launch ended.
#[derive(Debug, thiserror::Error)]
pub enum SnpError {
    /// The host is not one for SEV-SNP.
    #[error("SEV-SNP is not possible on this host: {}; `nacre check` says more", list(.0))]
    Missing(Vec<Missing>),
    /// All guests that the processor can keep apart are there already.
    #[error(
        "the processor has no ASID for another SEV-SNP guest: end one, or raise the number of them in the BIOS"
    )]
    NoAsid,
    /// The firmware does not let the guest begin.
    #[error("the firmware refused the guest: {0}")]
    Init(FirmwareStatus),
    /// The firmware or KVM refused the policy.
    #[error("policy {policy} was refused: {status}; `nacre check` shows which bits this host allows")]
    Policy {
        /// The policy.
        policy: Policy,
        /// The firmware's reason.
        status: FirmwareStatus,
    },
    /// The firmware refused a page.
    #[error("page {gpa:#x} of the guest's {name} was refused: {status}")]
    Page {
        /// What it belongs to.
        name: &'static str,
        /// Where it is.
        gpa: u64,
        /// The firmware's reason.
        status: FirmwareStatus,
    },
    /// KVM takes no more pages, and gives no reason.
    #[error("KVM does not get on with the pages of the guest's {name}")]
    Stuck {
        /// What they belong to.
        name: &'static str,
    },
    /// The firmware refused CPUID values.
    #[error("the firmware refused CPUID values: {}", list(.0))]
    Cpuid(Vec<Difference>),
    /// The firmware refused to end the launch.
    #[error("the launch could not be finished: {0}")]
    Finish(FirmwareStatus),
    /// The plan is for another number of CPUs: a mistake of ours.
    #[error("the plan is for {planned} CPUs, {made} were made")]
    CpuCount {
        /// The plan's.
        planned: usize,
        /// The machine's.
        made: usize,
    },
    /// A request of KVM's failed.
    #[error("{0} failed")]
    Kernel(&'static str, #[source] Errno),
    /// A virtual CPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
}

impl From<(&'static str, Errno)> for SnpError {
    fn from((request, errno): (&'static str, Errno)) -> Self {
        Self::Kernel(request, errno)
    }
}

impl SnpError {
    pub(super) fn init(error: SevError) -> Self {
        match error {
            SevError { errno: Errno::EBUSY, .. } => Self::NoAsid,
            error => Self::Init(error.into()),
        }
    }

    pub(super) fn start(error: SevError, policy: Policy) -> Self {
        const POLICY_FAILURE: u32 = 7;
        match error {
            // KVM itself looks at the policy first.
            SevError { errno: Errno::EINVAL, .. } | SevError { firmware: POLICY_FAILURE, .. } => {
                Self::Policy { policy, status: error.into() }
            }
            error => Self::Init(error.into()),
        }
    }

    pub(super) fn page(error: SevError, name: &'static str, gpa: u64) -> Self {
        Self::Page { name, gpa, status: error.into() }
    }

    pub(super) fn finish(error: SevError) -> Self {
        Self::Finish(error.into())
    }
}

/// Something that the host lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The device of the security processor.
    Device,
    /// KVM's type of machine.
    MachineType,
    /// A capability of KVM's.
    Capability(Capability),
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => formatter.write_str("/dev/sev can't be opened (module ccp, an AMD EPYC from Milan on)"),
            Self::MachineType => formatter.write_str(
                "KVM offers no SEV-SNP machines (Linux 6.11 or later, SEV-SNP enabled in the BIOS, kvm_amd.sev_snp=1)",
            ),
            Self::Capability(capability) => write!(formatter, "KVM lacks {}", capability.name()),
        }
    }
}

/// What kernel and firmware said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareStatus(SevError);

impl From<SevError> for FirmwareStatus {
    fn from(error: SevError) -> Self {
        Self(error)
    }
}

impl fmt::Display for FirmwareStatus {
    /// Names: SEV-SNP firmware ABI 56860, table "Status Codes".
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SevError { errno, firmware } = self.0;
        let name = match firmware {
            0 => return write!(formatter, "{}", errno.desc()),
            0x1 => "invalid platform state",
            0x2 => "invalid guest state",
            0x7 => "policy failure",
            0xa => "bad signature of the ID block or its key",
            0xb => "the measurement is not the ID block's",
            0xc => "the ASID is owned by another guest",
            0x16 => "invalid parameter",
            0x17 => "resource limit",
            0x1a => "invalid state of a page",
            u32::MAX => return write!(formatter, "{}, without asking the firmware", errno.desc()),
            _ => "a status that this version has no word for",
        };
        write!(formatter, "firmware status {firmware:#x}, {name}")
    }
}
