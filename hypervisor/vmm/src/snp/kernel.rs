//! What a launch needs of the kernel.

use kvm_bindings::{
    kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update,
};
use nacre_launch::CpuState;
use nix::errno::Errno;

use crate::cpu::CpuError;
use crate::private::{MemoryKernel, Transient};

/// KVM with a security processor behind it, or a model of both.
pub trait Kernel {
    /// A virtual CPU.
    type Cpu;
    /// Its memory.
    type Memory: MemoryKernel;

    /// The machine's memory.
    fn memory(&self) -> &Self::Memory;

    /// A command for the security processor (`KVM_MEMORY_ENCRYPT_OP`).
    ///
    /// # Errors
    /// The kernel's, with what the firmware said.
    fn sev(&self, command: Command<'_>) -> Result<(), SevError>;

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
    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`, which has no structure.
    EnableCertificates,
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

impl Transient for SevError {
    /// A signal came, or the firmware was busy. A signal at a call's first page is reported as an I/O error with which the
    /// firmware has nothing to do.
    fn is_transient(&self) -> bool {
        match self.errno {
            Errno::EINTR | Errno::EAGAIN => true,
            Errno::EIO => self.firmware == 0,
            _ => false,
        }
    }
}
