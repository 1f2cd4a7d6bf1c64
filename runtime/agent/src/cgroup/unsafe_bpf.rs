//! The two forms of the system call `bpf` that a device filter needs. nix and rustix do not have it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Filters of cgroups below apply as well, and can't replace this one.
const ALLOW_MULTI: u32 = 2;

/// One instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u8,
    /// The destination register in the low four bits, the source in the high ones.
    pub registers: u8,
    /// How far to jump, or an offset of an address.
    pub offset: i16,
    /// A constant.
    pub constant: i32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; what is left out is zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
}

/// Loads a device filter: the kernel checks that it ends and reads nothing but its argument.
///
/// # Errors
/// The kernel refuses it, or has no such filters.
pub fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let made = call(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Attaches a device filter to the cgroup whose folder is open as `cgroup`. It stays until the cgroup goes.
///
/// # Errors
/// The kernel refuses it.
pub fn attach(cgroup: impl AsFd, program: &OwnedFd) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    call(PROG_ATTACH, &attributes).map(drop)
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a structure without padding that lives through the call; the
    // addresses in it are of memory that its maker keeps borrowed as long, with the lengths that it gives.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
