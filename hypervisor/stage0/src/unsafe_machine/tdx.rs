//! A TDX guest's calls to the module.

use core::arch::asm;

use nacre_stage0::{PageSize, Validation};
use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::tdx;

unsafe extern "C" {
    /// In entry.s.
    fn report_fatal_error(code: u32, message: *const [u8; 64]) -> !;
}

/// TDCALL with a leaf and two operands. Returns RAX and RCX.
///
/// # Safety
/// The leaf must do nothing to memory that Rust knows of.
unsafe fn call(leaf: u64, first: u64, second: u64) -> (u64, u64) {
    let (status, result);
    // SAFETY: the caller's promise. A leaf leaves no other registers changed.
    unsafe {
        asm!(
            ".byte 0x66, 0x0f, 0x01, 0xcc",
            inout("rax") leaf => status,
            inout("rcx") first => result,
            inout("rdx") second => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    (status, result)
}

/// Accepts a page.
pub fn accept(page: u64, size: PageSize) -> Validation {
    let level = u64::from(size == PageSize::Large);
    // SAFETY: the page is not in use yet, so Rust knows nothing of it.
    let (status, _) = unsafe { call(tdx::MEM_PAGE_ACCEPT, page | level, 0) };
    match status >> 32 {
        0 => Validation::Done,
        tdx::PAGE_ALREADY_ACCEPTED => Validation::DoneBefore,
        tdx::PAGE_SIZE_MISMATCH => Validation::OtherSize,
        _ => Validation::Refused,
    }
}

/// The width of guest-physical addresses with the shared bit, which is the last.
pub fn address_width() -> u32 {
    // SAFETY: the leaf touches no memory.
    let (status, info) = unsafe { call(tdx::VP_INFO, 0, 0) };
    // Six bits; no width has the value zero.
    if status == 0 { (info & 0x3f) as u32 } else { 0 }
}

/// Extends a runtime measurement register by the 48 bytes at `digest`, an address that 64 divides.
pub fn extend(register: u8, digest: u64) -> bool {
    // SAFETY: the leaf reads memory and writes none.
    let (status, _) = unsafe { call(tdx::MR_RTMR_EXTEND, digest, register.into()) };
    status == 0
}

/// Ends the guest.
pub fn stop(stop: Stop) -> ! {
    let message = stop.message();
    // SAFETY: the message has 64 bytes. There is nothing more to do, whatever the host does then.
    unsafe { report_fatal_error(stop.port_value(), &raw const message) }
}
