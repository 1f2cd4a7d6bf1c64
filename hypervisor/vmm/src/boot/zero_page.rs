//! Linux's `boot_params` ("zero page") with the memory map.

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{BootError, Placed};
use crate::layout;
use crate::memory::GuestMemory;

/// "HdrS", `Documentation/arch/x86/boot.rst`.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// A loader without a number of its own.
const LOADER_OTHER: u8 = 0xff;
/// `E820_TYPE_RAM`; whatever is not listed is not memory.
const USABLE: u32 = 1;

pub(super) fn write(memory: &GuestMemory, placed: &Placed, command_line: usize) -> Result<(), BootError> {
    let mut page = boot_params::default();
    page.hdr.type_of_loader = LOADER_OTHER;
    page.hdr.boot_flag = BOOT_FLAG;
    page.hdr.header = HEADER_MAGIC;
    page.hdr.kernel_alignment = 0x100_0000;
    page.hdr.cmd_line_ptr = low(layout::COMMAND_LINE);
    page.hdr.cmdline_size = u32::try_from(command_line).unwrap_or(u32::MAX);
    page.hdr.ramdisk_image = low(placed.initrd);
    page.hdr.ramdisk_size = placed.initrd_size;

    let map = memory_map(memory);
    page.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    for (place, entry) in page.e820_table.iter_mut().zip(map) {
        *place = entry;
    }
    let params = BootParams::new(&page, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, memory).map_err(BootError::ZeroPage)
}

/// Everything that the boot code places is below 4 GiB by its layout.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

/// All memory but the PC's hole between 639 KiB and 1 MiB, where the MP table is.
pub(super) fn memory_map(memory: &GuestMemory) -> Vec<boot_e820_entry> {
    let mut map = vec![usable(0, layout::CONVENTIONAL_END)];
    for region in memory.iter() {
        let start = region.start_addr().0.max(layout::EXTENDED_MEMORY);
        let end = region.start_addr().0 + region.len();
        map.push(usable(start, end));
    }
    map
}

fn usable(start: u64, end: u64) -> boot_e820_entry {
    boot_e820_entry { addr: start, size: end - start, r#type: USABLE }
}
