//! What a launch needs of the kernel.

use std::os::fd::OwnedFd;

use kvm_bindings::{
    kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update,
    kvm_userspace_memory_region2,
};
use nacre_launch::CpuState;
use nix::errno::Errno;

use crate::cpu::CpuError;
use crate::private::Attributes;

/// KVM with a security processor behind it, or a model of both.
pub trait Kernel: Attributes {
    /// A virtual CPU.
    type Cpu;

    /// What `KVM_CHECK_EXTENSION` says on the machine; zero where it does not know.
    fn capability(&self, capability: Capability) -> u64;

    /// Hands these hypercalls of the guest on to us (`KVM_CAP_EXIT_HYPERCALL`).
    ///
    /// # Errors
    /// The kernel's.
    fn exit_on_hypercalls(&self, mask: u64) -> Result<(), Errno>;

    /// A command for the security processor (`KVM_MEMORY_ENCRYPT_OP`).
    ///
    /// # Errors
    /// The kernel's, with what the firmware said.
    fn sev(&self, command: Command<'_>) -> Result<(), SevError>;

    /// Memory that only the guest can reach (`KVM_CREATE_GUEST_MEMFD`).
    ///
    /// # Errors
    /// The kernel's.
    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd, Errno>;

    /// `KVM_SET_USER_MEMORY_REGION2`.
    ///
    /// # Errors
    /// The kernel's.
    fn set_region(&self, region: &kvm_userspace_memory_region2) -> Result<(), Errno>;

    /// Makes CPU `id` with its CPUID.
    ///
    /// # Errors
    /// The kernel's.
    fn create_cpu(&self, id: u8) -> Result<Self::Cpu, CpuError>;

    /// Puts CPU `id` into its first state.
    ///
    /// # Errors
    /// The kernel's.
    fn set_cpu(&self, cpu: &Self::Cpu, id: u8, state: &CpuState) -> Result<(), CpuError>;
}

/// A command, in the structure that KVM reads.
#[derive(Debug)]
pub enum Command<'a> {
    /// `KVM_SEV_INIT2`
    Init2(&'a kvm_sev_init),
    /// `KVM_SEV_SNP_LAUNCH_START`
    LaunchStart(&'a kvm_sev_snp_launch_start),
    /// `KVM_SEV_SNP_LAUNCH_UPDATE`. KVM moves start and length on.
    LaunchUpdate(&'a mut kvm_sev_snp_launch_update),
    /// `KVM_SEV_SNP_LAUNCH_FINISH`
    LaunchFinish(&'a kvm_sev_snp_launch_finish),
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SevError {
    /// The kernel's reason.
    pub errno: Errno,
    /// The firmware's status; all ones if it was not asked.
    pub firmware: u32,
}

impl SevError {
    /// Whether to try again: a signal came, or the firmware was busy. A signal at a call's first page is reported as an I/O
    /// error with which the firmware has nothing to do.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.errno {
            Errno::EINTR | Errno::EAGAIN => true,
            Errno::EIO => self.firmware == 0,
            _ => false,
        }
    }
}

/// A capability of KVM's that an SEV-SNP guest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Private and shared memory in one region.
    UserMemory2,
    /// Memory faults that are reported.
    MemoryFaultInfo,
    /// Pages that are private or shared.
    MemoryAttributes,
    /// Memory that only the guest can reach.
    GuestMemfd,
    /// Hypercalls that are handed on.
    ExitHypercall,
}

impl Capability {
    /// All of them.
    pub const NEEDED: [Self; 5] = [
        Self::UserMemory2,
        Self::MemoryFaultInfo,
        Self::MemoryAttributes,
        Self::GuestMemfd,
        Self::ExitHypercall,
    ];

    /// KVM's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::UserMemory2 => kvm_bindings::KVM_CAP_USER_MEMORY2,
            Self::MemoryFaultInfo => kvm_bindings::KVM_CAP_MEMORY_FAULT_INFO,
            Self::MemoryAttributes => kvm_bindings::KVM_CAP_MEMORY_ATTRIBUTES,
            Self::GuestMemfd => kvm_bindings::KVM_CAP_GUEST_MEMFD,
            Self::ExitHypercall => kvm_bindings::KVM_CAP_EXIT_HYPERCALL,
        }
    }

    /// The bits of the answer that must be set.
    #[must_use]
    pub const fn bits(self) -> u64 {
        match self {
            Self::UserMemory2 | Self::MemoryFaultInfo | Self::GuestMemfd => 1,
            Self::MemoryAttributes => kvm_bindings::KVM_MEMORY_ATTRIBUTE_PRIVATE as u64,
            Self::ExitHypercall => super::EXIT_MAP_GPA_RANGE,
        }
    }

    /// Its name in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserMemory2 => "KVM_CAP_USER_MEMORY2",
            Self::MemoryFaultInfo => "KVM_CAP_MEMORY_FAULT_INFO",
            Self::MemoryAttributes => "KVM_CAP_MEMORY_ATTRIBUTES",
            Self::GuestMemfd => "KVM_CAP_GUEST_MEMFD",
            Self::ExitHypercall => "KVM_CAP_EXIT_HYPERCALL",
        }
    }
}
