//! What a launch needs of the kernel.

use kvm_bindings::kvm_cpuid_entry2;
use nix::errno::Errno;

use super::abi::{Listed, MemRegion};
use crate::cpu::CpuError;
use crate::private::{MemoryKernel, Transient};

/// KVM with a TDX module behind it, or a model of both.
pub trait Kernel {
    /// A virtual CPU.
    type Cpu;
    /// Its memory.
    type Memory: MemoryKernel;

    /// The machine's memory.
    fn memory(&self) -> &Self::Memory;

    /// Leaves the IOAPIC to us (`KVM_CAP_SPLIT_IRQCHIP`).
    ///
    /// # Errors
    /// The kernel's.
    fn split_irqchip(&self) -> Result<(), Errno>;

    /// The length of an APIC bus cycle in nanoseconds (`KVM_CAP_X86_APIC_BUS_CYCLES_NS`).
    ///
    /// # Errors
    /// The kernel's.
    fn set_apic_bus_cycle(&self, nanoseconds: u64) -> Result<(), Errno>;

    /// The frequency that CPUs' TSCs will have, in kHz.
    ///
    /// # Errors
    /// The kernel's.
    fn tsc_khz(&self) -> Result<u32, Errno>;

    /// Sets that frequency.
    ///
    /// # Errors
    /// The kernel's.
    fn set_tsc_khz(&self, khz: u32) -> Result<(), Errno>;

    /// How many CPUs a machine can have here: the module knows a limit, and so does the number of the host's CPUs.
    fn most_cpus(&self) -> u32;

    /// How many CPUs this machine can have (`KVM_CAP_MAX_VCPUS`), from now on.
    ///
    /// # Errors
    /// The kernel's.
    fn set_most_cpus(&self, count: u32) -> Result<(), Errno>;

    /// A command for the machine (`KVM_MEMORY_ENCRYPT_OP`).
    ///
    /// # Errors
    /// The kernel's, with what the module said.
    fn machine(&self, command: MachineCommand<'_>) -> Result<(), TdxStatus>;

    /// What KVM would tell CPU `id` of a machine with `count` CPUs about itself, if nobody else did.
    ///
    /// # Errors
    /// The kernel's.
    fn cpuid(&self, id: u8) -> Result<Vec<kvm_cpuid_entry2>, CpuError>;

    /// Makes CPU `id`.
    ///
    /// # Errors
    /// The kernel's.
    fn create_cpu(&self, id: u8) -> Result<Self::Cpu, CpuError>;

    /// `KVM_SET_CPUID2`
    ///
    /// # Errors
    /// The kernel's.
    fn set_cpuid(&self, cpu: &Self::Cpu, id: u8, entries: &[kvm_cpuid_entry2]) -> Result<(), CpuError>;

    /// A command for a CPU (`KVM_MEMORY_ENCRYPT_OP`).
    ///
    /// # Errors
    /// The kernel's, with what the module said.
    fn cpu(&self, cpu: &Self::Cpu, command: CpuCommand<'_>) -> Result<(), TdxStatus>;
}

/// A command for a machine.
#[derive(Debug)]
pub enum MachineCommand<'a> {
    /// [`super::abi::Capabilities`] with room for its list, which KVM fills.
    Capabilities(&'a mut Listed),
    /// [`super::abi::InitVm`] with its list.
    Init(&'a mut Listed),
    /// Nothing.
    Finalize,
}

/// A command for a CPU.
#[derive(Debug)]
pub enum CpuCommand<'a> {
    /// What RCX and R8 hold at its first instruction.
    Init(u64),
    /// Pages to add. KVM moves them on.
    AddPages {
        /// Which.
        region: &'a mut MemRegion,
        /// Whether their content is measured.
        measure: bool,
    },
    /// [`super::abi::CpuidHead`] with room for its list, which KVM fills.
    Cpuid(&'a mut Listed),
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxStatus {
    /// The kernel's reason.
    pub errno: Errno,
    /// The module's status; zero if it was not asked or had no objection.
    pub module: u64,
}

impl Transient for TdxStatus {
    /// A signal came, or somebody else held what the module needed.
    fn is_transient(&self) -> bool {
        matches!(self.errno, Errno::EINTR | Errno::EAGAIN | Errno::EBUSY)
    }
}
