//! Places everything the guest starts from in its memory.

mod images;
pub mod long_mode;
mod zero_page;

use std::fs::File;
use std::ops::Range;

use linux_loader::loader;
use nacre_launch::command_line;
use nacre_stage0_abi::mp_table;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout;
use crate::memory::GuestMemory;

/// More than a table for 254 CPUs and 24 pins takes.
const MP_TABLE_ROOM: usize = 8 << 10;

/// What to start.
#[derive(Debug)]
pub struct BootSource {
    /// An ELF `vmlinux`.
    pub kernel: File,
    /// An initrd in any format that the kernel reads.
    pub initrd: File,
    /// The whole kernel command line.
    pub command_line: String,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// IOAPIC pins that devices use.
    pub interrupts: Range<u32>,
}

/// What was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The kernel's 64-bit entry.
    pub entry: u64,
    /// The end of the kernel with its zeroed data.
    pub kernel_end: u64,
    /// The initrd's first byte.
    pub initrd: u64,
    /// The initrd's length in bytes.
    pub initrd_size: u32,
}

/// Why a guest can't be started from its files.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Not an ELF file, or one that does not fit.
    #[error(
        "the guest kernel can't be loaded: it must be an uncompressed ELF vmlinux that fits guest memory"
    )]
    Kernel(#[source] loader::Error),
    /// The entry is outside of the loaded kernel.
    #[error("the guest kernel's entry {0:#x} is outside of the kernel")]
    Entry(u64),
    /// The initrd can't be read.
    #[error("the initrd can't be read")]
    InitrdUnreadable(#[source] std::io::Error),
    /// The initrd is empty.
    #[error("the initrd is empty")]
    InitrdEmpty,
    /// Kernel and initrd do not fit.
    #[error("an initrd of {size} bytes does not fit guest memory: {room} bytes are free beside the kernel")]
    InitrdTooLarge {
        /// The initrd's size.
        size: u64,
        /// Bytes between the kernel and the end of memory.
        room: u64,
    },
    /// The host has no room for another thread.
    #[error("can't start a thread that reads the initrd")]
    Thread(#[source] std::io::Error),
    /// The initrd ended early while it was read.
    #[error("the initrd can't be placed in guest memory")]
    InitrdPlacing(#[source] GuestMemoryError),
    /// The command line is too long for the kernel.
    #[error("the kernel command line has {0} bytes, the kernel takes {max}", max = command_line::MAX)]
    CommandLine(usize),
    /// More CPUs or interrupts than the MP table can name.
    #[error("the MP table has no room for the machine's CPUs and interrupts")]
    MpTable,
    /// A table does not fit guest memory.
    #[error("a boot table can't be placed in guest memory")]
    Table(#[from] GuestMemoryError),
    /// The zero page does not fit guest memory.
    #[error("the boot parameters can't be placed in guest memory")]
    ZeroPage(#[source] linux_loader::configurator::Error),
}

/// Fills `memory` for a start by Linux's 64-bit boot protocol.
///
/// # Errors
/// See [`BootError`].
pub fn place(memory: &GuestMemory, source: BootSource) -> Result<Placed, BootError> {
    let (kernel, initrd) = images::place(memory, source.kernel, source.initrd)?;
    if source.command_line.len() > command_line::MAX {
        return Err(BootError::CommandLine(source.command_line.len()));
    }
    let command_line_size = source.command_line.len();
    let mut text = source.command_line.into_bytes();
    text.push(0);
    memory.write_slice(&text, GuestAddress(layout::COMMAND_LINE))?;
    let mut table = vec![0; MP_TABLE_ROOM];
    mp_table::write(&mut table, source.vcpus.into(), source.interrupts).ok_or(BootError::MpTable)?;
    memory.write_slice(&table, GuestAddress(nacre_stage0_abi::layout::MP_TABLE))?;
    long_mode::write(memory)?;
    let placed = Placed {
        entry: kernel.entry,
        kernel_end: kernel.end,
        initrd: initrd.start,
        initrd_size: initrd.size,
    };
    zero_page::write(memory, &placed, command_line_size)?;
    Ok(placed)
}

#[cfg(test)]
mod tests;
