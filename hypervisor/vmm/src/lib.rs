//! The virtual machine monitor: one process for each pod, started by its shim.
//!
//! `nacre-vmm` finds its end of a [`nacre_control::Channel`] as descriptor 3, takes one
//! [`nacre_control::Request::Start`] with all its files, makes the [`machine::Machine`] and runs it until it ends
//! for one of the reasons of [`nacre_control::StopReason`]. It opens nothing by name and starts no process.
//!
//! Threads: one for each virtual CPU; one each for disks, network interfaces and the other devices; the main
//! thread, [`supervise`], which alone speaks to the shim and hears of everything by [`reports`].
//!
//! SECURITY: the guest is the attacker. It reaches this code through port and register accesses ([`ports`],
//! [`devices`]) and through the queues of `nacre-devices`; each value is checked where it enters.

#![deny(clippy::indexing_slicing)]

pub mod attester;
pub mod boot;
pub mod cpu;
pub mod devices;
pub mod files;
pub mod irqchip;
pub mod layout;
pub mod machine;
pub mod measured;
pub mod memory;
pub mod ports;
pub mod private;
pub mod process;
pub mod remembered;
pub mod reports;
pub mod simulated;
pub mod snp;
#[cfg(test)]
mod stand_in;
mod start;
pub mod supervise;
pub mod tdx;
mod unsafe_kernel;
pub mod unsafe_mapping;
mod unsafe_private;
mod unsafe_tdx;
mod wired;

pub use unsafe_kernel::add_mapping;
pub use unsafe_private::PRE_FAULT_MEMORY;

/// An error with all its causes in one line. Libraries that repeat a cause in their own text are not repeated.
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
