//! stage0: the measured first code of a guest.
//!
//! It takes memory into use, copies kernel, initrd and command line from the window that is shared with the host
//! into private memory, compares their hashes with the measured ones, and starts the kernel. Its image is all
//! that a verifier must trust beside the two measured pages that it reads.
//!
//! On SEV-SNP and TDX the host is the attacker. What keeps it out, and where:
//!
//! | rule | place |
//! |---|---|
//! | the kind of machine comes from a measured register or from the TDX module, and the processor confirms it | `entry.s`, `boot` |
//! | no interrupt or exception has a handler that a host could have put into memory: each is a shutdown | `entry.s` |
//! | only the first CPU runs this, once; a TDX guest's others wait in private memory | `entry.s` |
//! | each page is taken into use once, launched ones never again, and "valid before" is an attack | `memory` |
//! | a page is read when it was taken, so that cached lines from before are dropped | `entry.s`, `memory` |
//! | the memory map is measured, ascending, apart, and clear of stage0, the window and the devices | the ABI crate |
//! | the encryption bit is the one that the security processor vouches for, the shared bit the TDX module's | `boot` |
//! | of the CPUID page only leaves count that the security processor checks | `boot` |
//! | files are copied first; the private copy is hashed, and then used | `images` |
//! | tables for the kernel are made from measured numbers; no AML comes from the host | `linux` |
//! | what a host may have left in pages of unmeasured content is overwritten before it is read | `entry.s`, `linux` |
//!
//! `hypervisor/stage0/harness` attacks the finished program in all of these ways.
//!
//! This library decides everything; what touches the processor is behind [`Guest`]. The program around it
//! (feature `image`) is the entry in assembly and the implementation of [`Guest`] for real memory.

#![cfg_attr(not(test), no_std)]
#![deny(clippy::indexing_slicing)]

mod boot;
mod guest;
mod images;
mod linux;
mod memory;
mod page_tables;
mod sha256;
#[cfg(test)]
mod testing;

pub use boot::{Kernel, prepare};
pub use guest::{Guest, PageSize, Platform, Validate, Validation};
pub use memory::Work;
