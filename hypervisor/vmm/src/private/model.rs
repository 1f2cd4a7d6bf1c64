//! A model of KVM's memory with two sides, which refuses what KVM refuses: for the models of whole machines.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use kvm_bindings::kvm_userspace_memory_region2;
use nacre_stage0_abi::AddressRange;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Attributes, Capability, MemoryKernel, PrivateMap};

/// The memory.
#[derive(Debug, Default)]
pub struct MemoryModel {
    lacks: Option<Capability>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hypercalls: u64,
    regions: Vec<AddressRange>,
    private: PrivateMap,
}

impl MemoryModel {
    /// Memory of a kernel that lacks this capability.
    pub fn without(lacks: Option<Capability>) -> Self {
        Self { lacks, ..Self::default() }
    }

    /// Which hypercalls are handed on.
    pub fn hypercalls(&self) -> u64 {
        self.state.lock().unwrap().hypercalls
    }

    /// Whether all of a range is in one region.
    pub fn has(&self, range: AddressRange) -> bool {
        self.state.lock().unwrap().regions.iter().any(|region| region.contains(range))
    }

    /// Whether the page at `gpa` is private.
    pub fn is_private(&self, gpa: u64) -> bool {
        // `any` of a single page is all of it.
        AddressRange::new(gpa, 4096).is_some_and(|page| self.state.lock().unwrap().private.any(page))
    }
}

impl Attributes for MemoryModel {
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno> {
        if !range.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        self.state.lock().unwrap().private.set(range, private);
        Ok(())
    }
}

impl MemoryKernel for MemoryModel {
    fn capability(&self, capability: Capability) -> u64 {
        if self.lacks == Some(capability) { 0 } else { capability.bits() | 1 }
    }

    fn exit_on_hypercalls(&self, mask: u64) -> Result<(), Errno> {
        if mask & !(1 << 12) != 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().unwrap().hypercalls = mask;
        Ok(())
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd, Errno> {
        if size == 0 || !size.is_multiple_of(4096) {
            return Err(Errno::EINVAL);
        }
        let file = std::fs::File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(size).map_err(|_| Errno::ENOMEM)?;
        Ok(file.into())
    }

    fn set_region(&self, region: &kvm_userspace_memory_region2) -> Result<(), Errno> {
        let range = AddressRange::new(region.guest_phys_addr, region.memory_size).ok_or(Errno::EINVAL)?;
        let aligned = range.is_page_aligned() && region.userspace_addr.is_multiple_of(4096);
        if !aligned || region.flags != kvm_bindings::KVM_MEM_GUEST_MEMFD || region.guest_memfd_offset != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock().unwrap();
        if state.regions.iter().any(|other| other.overlaps(range)) {
            return Err(Errno::EEXIST);
        }
        state.regions.push(range);
        Ok(())
    }
}

/// What is at an address of this process, as KVM reads it.
pub fn read<const N: usize>(address: u64) -> [u8; N] {
    use std::io::IoSliceMut;

    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let mut bytes = [0; N];
    let remote = RemoteIoVec { base: usize::try_from(address).unwrap(), len: N };
    let this = nix::unistd::Pid::this();
    let read = process_vm_readv(this, &mut [IoSliceMut::new(&mut bytes)], &[remote]).unwrap();
    assert_eq!(read, N);
    bytes
}
