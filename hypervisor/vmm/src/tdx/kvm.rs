//! KVM itself.

use std::sync::Arc;

use kvm_bindings::{KVM_CAP_MAX_VCPUS, kvm_cpuid_entry2};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;

use super::abi::{self, Command};
use super::kernel::{CpuCommand, Kernel, MachineCommand, TdxStatus};
use super::refusal::{Missing, TdxError};
use crate::cpu::{CpuError, CpuModel};
use crate::private::{KvmMemory, enable, errno, offers};
use crate::{irqchip, unsafe_tdx};

/// A machine of KVM's.
#[derive(Debug)]
pub struct Kvm {
    memory: KvmMemory,
    model: CpuModel,
}

/// Looks for what a host needs for TDX, before any work is done for a guest.
///
/// # Errors
/// The host is not one for TDX.
pub fn check(kvm: &kvm_ioctls::Kvm) -> Result<(), TdxError> {
    if offers(kvm, abi::VM_TYPE) { Ok(()) } else { Err(TdxError::Missing(vec![Missing::MachineType])) }
}

/// Makes a machine of the type for TDX.
///
/// # Errors
/// The kernel refuses.
pub fn create(kvm: &kvm_ioctls::Kvm) -> Result<VmFd, TdxError> {
    kvm.create_vm_with_type(abi::VM_TYPE.into())
        .map_err(|error| TdxError::Kernel("KVM_CREATE_VM", errno(error)))
}

impl Kvm {
    /// The machine `vm`, whose CPUs are of this model.
    pub fn new(vm: Arc<VmFd>, model: CpuModel) -> Self {
        Self { memory: KvmMemory(vm), model }
    }

    fn vm(&self) -> &VmFd {
        &self.memory.0
    }
}

/// What a command's call has come to.
fn status(result: Result<(), Errno>, command: &Command) -> Result<(), TdxStatus> {
    result.map_err(|errno| TdxStatus { errno, module: command.hw_error })
}

impl Kernel for Kvm {
    type Cpu = VcpuFd;
    type Memory = KvmMemory;

    fn memory(&self) -> &KvmMemory {
        &self.memory
    }

    fn split_irqchip(&self) -> Result<(), Errno> {
        irqchip::split(self.vm())
    }

    fn set_apic_bus_cycle(&self, nanoseconds: u64) -> Result<(), Errno> {
        enable(self.vm(), abi::CAP_APIC_BUS_CYCLES_NS, nanoseconds)
    }

    fn tsc_khz(&self) -> Result<u32, Errno> {
        unsafe_tdx::tsc_khz(self.vm())
    }

    fn set_tsc_khz(&self, khz: u32) -> Result<(), Errno> {
        unsafe_tdx::set_tsc_khz(self.vm(), khz)
    }

    fn most_cpus(&self) -> u32 {
        u32::try_from(self.vm().check_extension_raw(KVM_CAP_MAX_VCPUS.into())).unwrap_or(0)
    }

    fn set_most_cpus(&self, count: u32) -> Result<(), Errno> {
        enable(self.vm(), KVM_CAP_MAX_VCPUS, count.into())
    }

    fn machine(&self, command: MachineCommand<'_>) -> Result<(), TdxStatus> {
        let (id, list) = match command {
            MachineCommand::Capabilities(list) => (abi::CAPABILITIES, Some(list)),
            MachineCommand::Init(list) => (abi::INIT_VM, Some(list)),
            MachineCommand::Finalize => (abi::FINALIZE_VM, None),
        };
        let mut command = Command { id, data: list.map_or(0, |list| list.address()), ..Command::default() };
        let result = unsafe_tdx::machine(self.vm(), &mut command);
        status(result, &command)
    }

    fn cpuid(&self, id: u8) -> Result<Vec<kvm_cpuid_entry2>, CpuError> {
        let khz = self.tsc_khz().map_err(|errno| CpuError::new(id, "KVM_GET_TSC_KHZ", errno))?;
        self.model.table(id, khz)
    }

    fn create_cpu(&self, id: u8) -> Result<VcpuFd, CpuError> {
        CpuModel::create_blank(self.vm(), id)
    }

    fn set_cpuid(&self, cpu: &VcpuFd, id: u8, entries: &[kvm_cpuid_entry2]) -> Result<(), CpuError> {
        CpuModel::set_table(cpu, id, entries)
    }

    fn cpu(&self, cpu: &VcpuFd, command: CpuCommand<'_>) -> Result<(), TdxStatus> {
        let (id, flags, data) = match command {
            // The number itself, not a pointer to it.
            CpuCommand::Init(rcx) => (abi::INIT_VCPU, 0, rcx),
            CpuCommand::AddPages { region, measure } => {
                let flags = if measure { abi::MEASURE } else { 0 };
                (abi::INIT_MEM_REGION, flags, std::ptr::from_mut(region) as u64)
            }
            CpuCommand::Cpuid(list) => (abi::GET_CPUID, 0, list.address()),
        };
        let mut command = Command { id, flags, data, hw_error: 0 };
        let result = unsafe_tdx::cpu(cpu, &mut command);
        status(result, &command)
    }
}
