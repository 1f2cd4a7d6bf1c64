//! KVM itself.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvm_bindings::{KVM_X86_SNP_VM, kvm_sev_cmd};
use kvm_ioctls::{VcpuFd, VmFd};
use nacre_launch::CpuState;

use super::certificates::ENABLE;
use super::kernel::{Command, Kernel, SevError};
use super::refusal::{Missing, SnpError};
use crate::cpu::{self, CpuError, CpuModel};
use crate::private::{KvmMemory, errno, offers};

/// A machine of KVM's, and the security processor's device.
#[derive(Debug)]
pub struct Kvm {
    memory: KvmMemory,
    /// Open as long as the launch: KVM keeps its number from one command to the next.
    sev: Option<File>,
    model: CpuModel,
}

/// Looks for what a host needs for SEV-SNP, before any work is done for a guest.
///
/// # Errors
/// The host is not one for SEV-SNP: everything that is missing, at once.
pub fn check(kvm: &kvm_ioctls::Kvm, sev: Option<&File>) -> Result<(), SnpError> {
    let mut missing = Vec::new();
    if sev.is_none() {
        missing.push(Missing::Device);
    }
    if !offers(kvm, KVM_X86_SNP_VM) {
        missing.push(Missing::MachineType);
    }
    if missing.is_empty() { Ok(()) } else { Err(SnpError::Missing(missing)) }
}

/// Makes a machine of the type for SEV-SNP.
///
/// # Errors
/// The kernel refuses.
pub fn create(kvm: &kvm_ioctls::Kvm) -> Result<VmFd, SnpError> {
    kvm.create_vm_with_type(KVM_X86_SNP_VM.into())
        .map_err(|error| SnpError::Kernel("KVM_CREATE_VM", errno(error)))
}

impl Kvm {
    /// The machine `vm`, whose CPUs are of this model.
    pub fn new(vm: Arc<VmFd>, sev: Option<File>, model: CpuModel) -> Self {
        Self { memory: KvmMemory(vm), sev, model }
    }

    fn encrypt<T>(&self, id: u32, data: &mut T) -> Result<(), SevError> {
        self.command(id, std::ptr::from_mut(data) as u64)
    }

    /// A command whose structure, if it has one, is at the address `data`.
    fn command(&self, id: u32, data: u64) -> Result<(), SevError> {
        let sev_fd = self.sev.as_ref().map_or(-1, AsRawFd::as_raw_fd).cast_unsigned();
        let mut command = kvm_sev_cmd { id, data, error: 0, sev_fd, ..Default::default() };
        match self.memory.0.encrypt_op_sev(&mut command) {
            Ok(()) => Ok(()),
            Err(error) => Err(SevError { errno: errno(error), firmware: command.error }),
        }
    }
}

impl Kernel for Kvm {
    type Cpu = VcpuFd;
    type Memory = KvmMemory;

    fn memory(&self) -> &KvmMemory {
        &self.memory
    }

    fn sev(&self, command: Command<'_>) -> Result<(), SevError> {
        use kvm_bindings::{
            sev_cmd_id_KVM_SEV_INIT2 as INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH as FINISH,
            sev_cmd_id_KVM_SEV_SNP_LAUNCH_START as START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE as UPDATE,
        };
        // KVM writes to the structure of the third only; the others are copied so that it could.
        match command {
            Command::Init2(data) => self.encrypt(INIT2, &mut { *data }),
            Command::EnableCertificates => self.command(ENABLE, 0),
            Command::LaunchStart(data) => self.encrypt(START, &mut { *data }),
            Command::LaunchUpdate(data) => self.encrypt(UPDATE, data),
            Command::LaunchFinish(data) => self.encrypt(FINISH, &mut { *data }),
        }
    }

    fn create_cpu(&self, id: u8) -> Result<VcpuFd, CpuError> {
        self.model.create(&self.memory.0, id)
    }

    fn set_cpu(&self, cpu: &VcpuFd, id: u8, state: &CpuState) -> Result<(), CpuError> {
        cpu::state::set(cpu, id, state)
    }
}
