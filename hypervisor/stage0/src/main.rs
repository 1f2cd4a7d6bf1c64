//! stage0 itself: the entry, the processor, and the jump to the kernel. `cargo xtask stage0` builds it.

#![no_std]
#![no_main]

mod unsafe_machine;

use core::panic::PanicInfo;

use nacre_stage0::{Platform, prepare};
use nacre_stage0_abi::entry;
use nacre_stage0_abi::stop::Stop;
use unsafe_machine::Machine;

/// Called by the entry, with EDI as it was at the reset vector: one of three tags.
extern "C" fn main(tag: u32) -> ! {
    let platform = match tag {
        entry::TAG_TDX => Platform::Tdx,
        entry::TAG_SNP => Platform::Snp,
        _ => Platform::Plain,
    };
    match prepare(&mut Machine::new(platform), platform) {
        Ok(kernel) => unsafe_machine::enter(kernel),
        Err(stop) => unsafe_machine::stop(platform, stop),
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe_machine::stop(unsafe_machine::platform(), Stop::Panic)
}
