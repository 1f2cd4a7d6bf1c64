//! The system calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nix::errno::Errno;
use vm_memory::MmapRegion;

use crate::snp::certificates::Asked;
use crate::unsafe_mapping::Mapping;

/// Takes an opened `/dev/kvm` over.
pub fn kvm_from(file: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned and given up here, so `Kvm` is its only owner. What it refers to is
    // checked with KVM_GET_API_VERSION before anything else is asked of it.
    unsafe { Kvm::from_raw_fd(file.into_raw_fd()) }
}

/// Shows a mapping to the guest at `guest_address` as memory slot `slot`.
///
/// # Errors
/// KVM refuses the slot.
pub fn add_mapping(
    vm: &VmFd,
    slot: u32,
    guest_address: u64,
    mapping: &Mapping,
) -> Result<(), kvm_ioctls::Error> {
    let slot = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest_address,
        memory_size: mapping.size(),
        userspace_addr: mapping.address(),
    };
    // SAFETY: as in `add_memory`.
    unsafe { vm.set_user_memory_region(slot) }
}

/// Shows `region` to the guest at `guest_address` as memory slot `slot`.
///
/// # Errors
/// KVM refuses the slot.
pub fn add_memory(
    vm: &VmFd,
    slot: u32,
    guest_address: u64,
    region: &MmapRegion,
) -> Result<(), kvm_ioctls::Error> {
    let slot = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest_address,
        memory_size: region.size() as u64,
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: `region` is a live mapping of this size, and every caller keeps the guest memory that it belongs
    // to until the process ends: `Machine` owns it beside the VM.
    unsafe { vm.set_user_memory_region(slot) }
}

/// Keeps guest memory out of core dumps: it holds the pod's secrets.
///
/// # Errors
/// The kernel refuses.
pub fn exclude_from_dumps(region: &MmapRegion) -> Result<(), Errno> {
    // SAFETY: the range is exactly one live mapping, and MADV_DONTDUMP does not change its contents.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTDUMP) };
    Errno::result(result).map(drop)
}

/// Asks for huge pages. A host without them gives small ones.
pub fn prefer_huge_pages(region: &MmapRegion) {
    // SAFETY: as in `exclude_from_dumps`.
    unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
}

/// Names a mapping in `/proc/<pid>/maps`, so that whoever counts memory can tell the guest's from ours. Kernels
/// without `CONFIG_ANON_VMA_NAME` don't.
pub fn name_mapping(region: &MmapRegion, name: &CStr) {
    // SAFETY: the range is exactly one live mapping, and the kernel copies the name during the call.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            region.as_ptr(),
            region.size(),
            name.as_ptr(),
        )
    };
}

/// The second word of KVM's report about an internal error.
pub fn internal_suberror(vcpu: &mut VcpuFd) -> u32 {
    // SAFETY: the caller has just seen KVM_EXIT_INTERNAL_ERROR, for which KVM filled this member of the union;
    // every bit pattern is a valid u32.
    unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror }
}

/// Serves a request for certificates: `serve` reads it and writes its results into it.
pub fn serve_certificates<T>(vcpu: &mut VcpuFd, serve: impl FnOnce(&mut Asked) -> T) -> T {
    let union = &raw mut vcpu.get_kvm_run().__bindgen_anon_1;
    // SAFETY: the caller has just seen KVM_EXIT_SNP_REQ_CERTS, for which KVM filled this member of the union. The union has
    // 256 bytes, is aligned for 64-bit words, and every bit pattern is an `Asked`. Nothing else refers to the page while
    // the CPU, mutably borrowed, does not run.
    serve(unsafe { &mut *union.cast::<Asked>() })
}

/// Asks for a SIGKILL when the thread that started this process ends.
///
/// # Errors
/// The kernel refuses.
pub fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Errno::result(result).map(drop)
}

/// Closes every descriptor from `first` on.
///
/// # Errors
/// The kernel refuses.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: called first thing in `main`, when no object of this process owns a descriptor from `first` on.
    let result = unsafe { libc::close_range(first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

/// Takes over a descriptor that the parent left open for us; `None` when it is not open.
pub fn inherited(descriptor: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and `main` calls this once, before anything else could own it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Lends a descriptor whose owner does not implement `AsFd`.
pub fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps it open at least as long as it is borrowed here.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
