//! stage0: the measured first code of a guest.
//!
//! It takes memory into use, copies kernel, initrd and command line from the window that is shared with the host
//! into private memory, compares their hashes with the measured ones, and starts the kernel. Its image is all
//! that a verifier must trust beside the two measured pages that it reads.
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
