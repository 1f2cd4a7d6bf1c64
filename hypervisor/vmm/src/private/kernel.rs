//! KVM's interface for memory with two sides, which all kinds of confidential machine have.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_VM_TYPES, kvm_create_guest_memfd, kvm_enable_cap, kvm_memory_attributes,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VmFd};
use nacre_stage0_abi::AddressRange;
use nix::errno::Errno;

use super::{Attributes, MAP_GPA_RANGE, PrivateRegion};
use crate::unsafe_private;

/// `KVM_HC_MAP_GPA_RANGE` as a bit of `KVM_CAP_EXIT_HYPERCALL`.
const EXIT_MAP_GPA_RANGE: u64 = 1 << MAP_GPA_RANGE;

/// KVM, or a model of it.
pub trait MemoryKernel: Attributes {
    /// What `KVM_CHECK_EXTENSION` says on the machine; zero where it does not know.
    fn capability(&self, capability: Capability) -> u64;

    /// Hands these hypercalls of the guest on to us (`KVM_CAP_EXIT_HYPERCALL`).
    ///
    /// # Errors
    /// The kernel's.
    fn exit_on_hypercalls(&self, mask: u64) -> Result<(), Errno>;

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
}

/// A capability of KVM's that a machine with private memory needs.
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
            Self::ExitHypercall => EXIT_MAP_GPA_RANGE,
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

/// The capabilities that the machine lacks.
pub fn missing(kernel: &impl MemoryKernel) -> Vec<Capability> {
    let lacks =
        |capability: &Capability| kernel.capability(*capability) & capability.bits() != capability.bits();
    Capability::NEEDED.into_iter().filter(lacks).collect()
}

/// Hands the guest's conversions on to us: without it KVM answers each of them with an error.
///
/// # Errors
/// The request that failed, and why.
pub fn exit_on_conversions(kernel: &impl MemoryKernel) -> Result<(), (&'static str, Errno)> {
    kernel.exit_on_hypercalls(EXIT_MAP_GPA_RANGE).map_err(|errno| ("KVM_ENABLE_CAP", errno))
}

/// A range of RAM, or the place of stage0's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The guest's addresses.
    pub range: AddressRange,
    /// Where the shared side is in this process.
    pub shared_address: u64,
}

/// Makes regions of memory with a private and a shared side, the private one in use: the guest then needs to convert only
/// what it shares.
///
/// # Errors
/// The request that failed, and why.
pub fn add_regions(
    kernel: &impl MemoryKernel,
    regions: &[Region],
) -> Result<Vec<PrivateRegion>, (&'static str, Errno)> {
    regions.iter().zip(0..).map(|(region, slot)| add_region(kernel, slot, region)).collect()
}

/// Makes one region, in this slot.
///
/// # Errors
/// The request that failed, and why.
pub fn add_region(
    kernel: &impl MemoryKernel,
    slot: u32,
    region: &Region,
) -> Result<PrivateRegion, (&'static str, Errno)> {
    let failed = |request| move |errno| (request, errno);
    let range = region.range;
    let private = kernel.create_guest_memfd(range.len()).map_err(failed("KVM_CREATE_GUEST_MEMFD"))?;
    let descriptor = u32::try_from(private.as_raw_fd()).map_err(|_| ("open", Errno::EBADF))?;
    let description = kvm_userspace_memory_region2 {
        slot,
        flags: kvm_bindings::KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: range.start(),
        memory_size: range.len(),
        userspace_addr: region.shared_address,
        guest_memfd_offset: 0,
        guest_memfd: descriptor,
        ..Default::default()
    };
    kernel.set_region(&description).map_err(failed("KVM_SET_USER_MEMORY_REGION2"))?;
    kernel.set_private(range, true).map_err(failed("KVM_SET_MEMORY_ATTRIBUTES"))?;
    Ok(PrivateRegion { range, shared_address: region.shared_address, private })
}

/// Whether KVM offers a type of machine.
pub fn offers(kvm: &Kvm, kind: u32) -> bool {
    kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()).cast_unsigned() & 1 << kind != 0
}

/// The memory of a machine of KVM's.
#[derive(Debug, Clone)]
pub struct KvmMemory(pub Arc<VmFd>);

impl Attributes for KvmMemory {
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno> {
        let attributes = if private { u64::from(kvm_bindings::KVM_MEMORY_ATTRIBUTE_PRIVATE) } else { 0 };
        let (address, size) = (range.start(), range.len());
        let change = kvm_memory_attributes { address, size, attributes, flags: 0 };
        self.0.set_memory_attributes(change).map_err(errno)
    }
}

impl MemoryKernel for KvmMemory {
    fn capability(&self, capability: Capability) -> u64 {
        let answer = self.0.check_extension_raw(capability.number().into());
        u64::try_from(answer).unwrap_or(0)
    }

    fn exit_on_hypercalls(&self, mask: u64) -> Result<(), Errno> {
        enable(&self.0, kvm_bindings::KVM_CAP_EXIT_HYPERCALL, mask)
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd, Errno> {
        let made = self.0.create_guest_memfd(kvm_create_guest_memfd { size, ..Default::default() });
        made.map(unsafe_private::own).map_err(errno)
    }

    fn set_region(&self, region: &kvm_userspace_memory_region2) -> Result<(), Errno> {
        unsafe_private::set_region(&self.0, *region)
    }
}

/// Enables a capability of the machine.
///
/// # Errors
/// The kernel's.
pub fn enable(vm: &VmFd, cap: u32, value: u64) -> Result<(), Errno> {
    let capability = kvm_enable_cap { cap, args: [value, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&capability).map_err(errno)
}

/// An error of KVM's in nix's form.
pub fn errno(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw(error.errno())
}
