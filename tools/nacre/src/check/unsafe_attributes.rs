//! Attributes of KVM itself, which kvm-ioctls has for KVM's devices only.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_X86_GRP_SEV, kvm_device_attr};
use kvm_ioctls::Kvm;
use nix::errno::Errno;

mod ioctl {
    use super::kvm_device_attr;

    // `KVM_GET_DEVICE_ATTR` (Linux, uapi/linux/kvm.h).
    nix::ioctl_write_ptr!(get_device_attr, 0xae, 0xe2, kvm_device_attr);
}

/// An attribute of the group for SEV: a number of 64 bits (Linux, Documentation/virt/kvm/x86/amd-memory-encryption.rst).
///
/// # Errors
/// The kernel's; it has no such attribute.
pub fn get(kvm: &Kvm, attribute: u32) -> Result<u64, Errno> {
    let mut value = 0_u64;
    let request = kvm_device_attr {
        flags: 0,
        group: KVM_X86_GRP_SEV,
        attr: attribute.into(),
        addr: (&raw mut value) as u64,
    };
    // SAFETY: KVM reads `request` and writes 8 bytes at `addr`, which is `value`: each attribute of this group is a u64. Both
    // live until the call is over.
    unsafe { ioctl::get_device_attr(kvm.as_raw_fd(), &raw const request) }?;
    Ok(value)
}
