//! KVM itself.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_VM_TYPES, KVM_X86_SNP_VM, kvm_create_guest_memfd, kvm_enable_cap, kvm_memory_attributes,
    kvm_sev_cmd, kvm_userspace_memory_region2,
};
use kvm_ioctls::{VcpuFd, VmFd};
use nacre_launch::CpuState;
use nacre_stage0_abi::AddressRange;
use nix::errno::Errno;

use super::kernel::{Capability, Command, Kernel, SevError};
use super::refusal::{Missing, SnpError};
use crate::cpu::{self, CpuError, CpuModel};
use crate::private::Attributes;
use crate::unsafe_private;

/// A machine of KVM's, and the security processor's device.
#[derive(Debug)]
pub struct Kvm {
    vm: Arc<VmFd>,
    /// Open as long as the launch: KVM keeps its number from one command to the next.
    sev: Option<File>,
    model: CpuModel,
}

/// Whether KVM offers a type of machine.
pub fn offers(kvm: &kvm_ioctls::Kvm, kind: u32) -> bool {
    kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()).cast_unsigned() & 1 << kind != 0
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
        Self { vm, sev, model }
    }

    fn encrypt<T>(&self, id: u32, data: &mut T) -> Result<(), SevError> {
        let sev_fd = self.sev.as_ref().map_or(-1, AsRawFd::as_raw_fd).cast_unsigned();
        let mut command =
            kvm_sev_cmd { id, data: std::ptr::from_mut(data) as u64, error: 0, sev_fd, ..Default::default() };
        match self.vm.encrypt_op_sev(&mut command) {
            Ok(()) => Ok(()),
            Err(error) => Err(SevError { errno: errno(error), firmware: command.error }),
        }
    }
}

impl Attributes for Kvm {
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno> {
        set_private(&self.vm, range, private)
    }
}

impl Kernel for Kvm {
    type Cpu = VcpuFd;

    fn capability(&self, capability: Capability) -> u64 {
        let answer = self.vm.check_extension_raw(capability.number().into());
        u64::try_from(answer).unwrap_or(0)
    }

    fn exit_on_hypercalls(&self, mask: u64) -> Result<(), Errno> {
        exit_on_hypercalls(&self.vm, mask)
    }

    fn sev(&self, command: Command<'_>) -> Result<(), SevError> {
        use kvm_bindings::{
            sev_cmd_id_KVM_SEV_INIT2 as INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH as FINISH,
            sev_cmd_id_KVM_SEV_SNP_LAUNCH_START as START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE as UPDATE,
        };
        // KVM writes to the structure of the third only; the others are copied so that it could.
        match command {
            Command::Init2(data) => self.encrypt(INIT2, &mut { *data }),
            Command::LaunchStart(data) => self.encrypt(START, &mut { *data }),
            Command::LaunchUpdate(data) => self.encrypt(UPDATE, data),
            Command::LaunchFinish(data) => self.encrypt(FINISH, &mut { *data }),
        }
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd, Errno> {
        create_guest_memfd(&self.vm, size)
    }

    fn set_region(&self, region: &kvm_userspace_memory_region2) -> Result<(), Errno> {
        unsafe_private::set_region(&self.vm, *region)
    }

    fn create_cpu(&self, id: u8) -> Result<VcpuFd, CpuError> {
        self.model.create(&self.vm, id)
    }

    fn set_cpu(&self, cpu: &VcpuFd, id: u8, state: &CpuState) -> Result<(), CpuError> {
        cpu::state::set(cpu, id, state)
    }
}

/// KVM's attributes of a machine's memory, for who converts.
#[derive(Debug)]
pub struct KvmAttributes(pub Arc<VmFd>);

impl Attributes for KvmAttributes {
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno> {
        set_private(&self.0, range, private)
    }
}

fn set_private(vm: &VmFd, range: AddressRange, private: bool) -> Result<(), Errno> {
    let attributes = if private { u64::from(kvm_bindings::KVM_MEMORY_ATTRIBUTE_PRIVATE) } else { 0 };
    let (address, size) = (range.start(), range.len());
    let change = kvm_memory_attributes { address, size, attributes, flags: 0 };
    vm.set_memory_attributes(change).map_err(errno)
}

/// Memory that only the guest can reach.
///
/// # Errors
/// The kernel's.
pub fn create_guest_memfd(vm: &VmFd, size: u64) -> Result<OwnedFd, Errno> {
    let made = vm.create_guest_memfd(kvm_create_guest_memfd { size, ..Default::default() });
    made.map(unsafe_private::own).map_err(errno)
}

/// Hands these hypercalls on to us.
///
/// # Errors
/// The kernel's.
pub fn exit_on_hypercalls(vm: &VmFd, mask: u64) -> Result<(), Errno> {
    let capability = kvm_enable_cap {
        cap: kvm_bindings::KVM_CAP_EXIT_HYPERCALL,
        args: [mask, 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&capability).map_err(errno)
}

fn errno(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw(error.errno())
}
