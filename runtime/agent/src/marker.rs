//! Bytes that the agent writes to I/O ports for the VMM: when it starts and how it ends.
#![allow(unsafe_code)]

use std::arch::asm;

/// The port of power-on diagnostics: the VMM notes when this byte comes (T8).
const DIAGNOSTIC_PORT: u16 = 0x80;
const STARTED: u8 = 0x41;

/// QEMU's pvpanic device, whose bits the VMM understands.
const PANIC_PORT: u16 = 0x505;
const PANICKED: u8 = 0x01;
const SHUTDOWN: u8 = 0x04;

/// The agent's first instructions run.
pub fn started() {
    write(DIAGNOSTIC_PORT, STARTED);
}

/// The guest ends in good order.
pub fn shutdown() {
    write(PANIC_PORT, SHUTDOWN);
}

/// The guest ends because its agent can't go on.
pub fn crashed() {
    write(PANIC_PORT, PANICKED);
}

/// Only for the init process of a VM: on a real machine these ports may belong to hardware.
fn write(port: u16, value: u8) {
    // SAFETY: ioperm changes only what this thread may do.
    if unsafe { libc::ioperm(port.into(), 1, 1) } != 0 {
        return;
    }
    // SAFETY: the port was just permitted to this thread; a write to it touches neither memory nor flags.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}
