//! Why there is no trust domain, in words.

use std::fmt;

use nix::errno::Errno;

use super::kernel::TdxStatus;
use crate::cpu::CpuError;
use crate::private::{Capability, list};

/// Why a launch ended.
#[derive(Debug, thiserror::Error)]
pub enum TdxError {
    /// The host is not one for TDX.
    #[error("Intel TDX is not possible on this host: {}; `nacre check` says more", list(.0))]
    Missing(Vec<Missing>),
    /// All guests that the processor can keep apart are there already.
    #[error("the processor has no key for another trust domain: end one, or give TDX more keys in the BIOS")]
    NoKey,
    /// More CPUs than a trust domain can have here.
    #[error("the VM has {wanted} CPUs, a trust domain can have {most} on this host: lower vm.max_vcpus")]
    TooManyCpus {
        /// The machine's.
        wanted: u32,
        /// The host's limit.
        most: u32,
    },
    /// The module does not let the guest begin.
    #[error("the TDX module refused the trust domain: {0}")]
    Init(ModuleStatus),
    /// The module refused a CPU.
    #[error("the TDX module refused CPU {cpu}: {status}")]
    InitCpu {
        /// Which.
        cpu: u8,
        /// The module's reason.
        status: ModuleStatus,
    },
    /// The module refused a page.
    #[error("page {gpa:#x} of the guest's {name} was refused: {status}")]
    Page {
        /// What it belongs to.
        name: &'static str,
        /// Where it is.
        gpa: u64,
        /// The module's reason.
        status: ModuleStatus,
    },
    /// A page of a kind that TDX does not have: a mistake of ours.
    #[error("the plan has pages of the guest's {name} that a TDX module can't add")]
    PageKind {
        /// What they belong to.
        name: &'static str,
    },
    /// The module refused to end the launch.
    #[error("the launch could not be finished: {0}")]
    Finish(ModuleStatus),
    /// Another command.
    #[error("{request} failed: {status}")]
    Command {
        /// Which.
        request: &'static str,
        /// The reason.
        status: ModuleStatus,
    },
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

impl From<(&'static str, Errno)> for TdxError {
    fn from((request, errno): (&'static str, Errno)) -> Self {
        Self::Kernel(request, errno)
    }
}

/// Something that the host lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// KVM's type of machine.
    MachineType,
    /// A capability of KVM's.
    Capability(Capability),
    /// An attribute without which Linux does not start.
    SeptVeDisable,
    /// Extended state that every guest has.
    Xfam,
    /// The choice of the width of guest-physical addresses.
    AddressWidth,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MachineType => formatter.write_str(
                "KVM offers no trust domains (Linux 6.16 or later, TDX enabled in the BIOS, kvm_intel.tdx=1)",
            ),
            Self::Capability(capability) => write!(formatter, "KVM lacks {}", capability.name()),
            Self::SeptVeDisable => formatter.write_str("the TDX module lacks the attribute SEPT_VE_DISABLE"),
            Self::Xfam => formatter.write_str("the TDX module supports neither x87 nor SSE state"),
            Self::AddressWidth => {
                formatter.write_str("the TDX module does not let a guest's address width be chosen")
            }
        }
    }
}

/// What kernel and module said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleStatus(TdxStatus);

impl From<TdxStatus> for ModuleStatus {
    fn from(status: TdxStatus) -> Self {
        Self(status)
    }
}

impl fmt::Display for ModuleStatus {
    /// Names: TDX module ABI specification 348551, "Function Completion Status". The upper half is the class, the lower
    /// one says which operand.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TdxStatus { errno, module } = self.0;
        if module == 0 {
            return write!(formatter, "{}, without a status of the TDX module's", errno.desc());
        }
        let name = match module >> 32 {
            0xc000_0100 => "an operand is invalid",
            0x8000_0200 => "an operand is busy",
            0x8000_0203 => "the processor had no random numbers",
            0xc000_0b00 => "a page is not where it should be",
            0xc000_0b0a => "a page was added before",
            _ => "a status that this version has no word for",
        };
        write!(formatter, "status {module:#x} of the TDX module, {name}")
    }
}
