//! Guests of a few instructions that end their machine, each in another way: the VMM says in which.

use std::fs::File;
use std::io::Write;

use kvm_ioctls::Kvm;
use nacre_control::StopReason;

use crate::case::{Case, Failure, said};
use crate::guest::{self, Way};

pub const CASES: &[Case] = &[
    Case { name: "end-power-off", run: power_off },
    Case { name: "end-panic", run: panic },
    Case { name: "end-reset", run: reset },
    Case { name: "end-triple-fault", run: triple_fault },
    Case { name: "end-internal-error", run: internal_error },
];

/// Where the kernel is, and where it is entered.
const START: u64 = 0x10_0000;

/// `mov dx, port; mov al, value; out dx, al; hlt`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xf4]
}

fn power_off(_: &Kvm) -> Result<(), Failure> {
    ends(&out(0x505, 4), StopReason::PowerOff)
}

fn panic(_: &Kvm) -> Result<(), Failure> {
    ends(&out(0x505, 1), StopReason::Reset)
}

fn reset(_: &Kvm) -> Result<(), Failure> {
    ends(&out(0x64, 0xfe), StopReason::Reset)
}

/// `ud2`, without a table of handlers.
fn triple_fault(_: &Kvm) -> Result<(), Failure> {
    ends(&[0x0f, 0x0b], StopReason::TripleFault)
}

/// `mov eax, 0x20000000; jmp rax`: the page is mapped, but no memory is there, so KVM has no instruction to emulate.
fn internal_error(_: &Kvm) -> Result<(), Failure> {
    /// `KVM_INTERNAL_ERROR_EMULATION`
    const EMULATION: u32 = 1;
    let code = [0xb8, 0, 0, 0, 0x20, 0xff, 0xe0];
    ends(&code, StopReason::KvmInternalError { suberror: EMULATION })
}

/// Fails unless a guest with this code ends so.
fn ends(code: &[u8], wanted: StopReason) -> Result<(), Failure> {
    guest::start_kernel(kernel(code)?, Way::Direct, |_| Ok(()))?.ends(wanted)
}

/// An ELF file with one segment: System V ABI, "Object Files".
fn kernel(code: &[u8]) -> Result<File, Failure> {
    const HEADERS: u64 = 64 + 56;
    let (executable, x86_64, version, load, read_execute) = (2u16, 62u16, 1u32, 1u32, 5u32);
    let length = (code.len() as u64).to_le_bytes();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([executable.to_le_bytes(), x86_64.to_le_bytes()].concat());
    bytes.extend(version.to_le_bytes());
    bytes.extend([START, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    bytes.extend([load, read_execute].map(u32::to_le_bytes).concat());
    bytes.extend([HEADERS, START, START].map(u64::to_le_bytes).concat());
    bytes.extend([length, length, 0x1000u64.to_le_bytes()].concat());
    bytes.extend(code);
    let mut file = tempfile::tempfile().map_err(said("a temporary file"))?;
    file.write_all(&bytes).map_err(said("writing a temporary file"))?;
    Ok(file)
}
