//! TDX: the system calls that kvm-ioctls does not have, and the part of a CPU's page that it does not know.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;

use crate::tdx::abi::{Command, Exit, GET_TSC_KHZ, MEMORY_ENCRYPT_OP, SET_TSC_KHZ};

/// A command for a machine.
///
/// # Errors
/// The kernel's. The module's status is in the command then.
pub fn machine(vm: &VmFd, command: &mut Command) -> Result<(), Errno> {
    encrypt_op(vm, command)
}

/// A command for a CPU.
///
/// # Errors
/// The kernel's. The module's status is in the command then.
pub fn cpu(vcpu: &VcpuFd, command: &mut Command) -> Result<(), Errno> {
    encrypt_op(vcpu, command)
}

fn encrypt_op(descriptor: &impl AsRawFd, command: &mut Command) -> Result<(), Errno> {
    // SAFETY: KVM reads and writes this structure and what its `data` points at, which is a structure of the size that
    // the command and its list's length say: the callers, in `tdx::kvm`, take both from one mutably borrowed object.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), MEMORY_ENCRYPT_OP, &raw mut *command) })
        .map(drop)
}

/// The frequency of a machine's TSCs in kHz.
///
/// # Errors
/// The kernel's.
pub fn tsc_khz(vm: &VmFd) -> Result<u32, Errno> {
    // SAFETY: the request takes no argument.
    let khz = Errno::result(unsafe { libc::ioctl(vm.as_raw_fd(), GET_TSC_KHZ, 0) })?;
    u32::try_from(khz).map_err(|_| Errno::EINVAL)
}

/// Sets the frequency of the TSCs of CPUs that are made from now on.
///
/// # Errors
/// The kernel's.
pub fn set_tsc_khz(vm: &VmFd, khz: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a number.
    Errno::result(unsafe { libc::ioctl(vm.as_raw_fd(), SET_TSC_KHZ, libc::c_ulong::from(khz)) }).map(drop)
}

/// Serves an exit in the form that `kvm-bindings` does not have: `serve` reads it and writes its results into it.
pub fn serve_exit<T>(vcpu: &mut VcpuFd, serve: impl FnOnce(&mut Exit) -> T) -> T {
    let union = &raw mut vcpu.get_kvm_run().__bindgen_anon_1;
    // SAFETY: the caller has just seen KVM_EXIT_TDX, for which KVM filled this member of the union. The union has 256 bytes,
    // is aligned for 64-bit words, and every bit pattern is an `Exit`. Nothing else refers to the page while the CPU,
    // mutably borrowed, does not run.
    serve(unsafe { &mut *union.cast::<Exit>() })
}
