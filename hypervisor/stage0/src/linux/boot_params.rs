//! `struct boot_params`, the "zero page" (`arch/x86/include/uapi/asm/bootparam.h`).

use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{Image, Images};

use super::memory_map::Entry;

const RSDP: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const KERNEL_ALIGNMENT: usize = 0x230;
const COMMAND_LINE_SIZE: usize = 0x238;
const SETUP_DATA: usize = 0x250;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY: usize = 20;

/// A loader without a number of its own.
const LOADER_OTHER: u8 = 0xff;
/// The protected-mode code is at or above 1 MiB.
const LOADED_HIGH: u8 = 1;
/// The protocol's version that all fields above belong to.
const PROTOCOL: u16 = 0x20f;

/// Fills the page.
pub(super) fn write(
    page: &mut [u8],
    images: &Images,
    rsdp: u64,
    setup_data: u64,
    memory: impl Iterator<Item = Entry>,
) -> Result<(), Stop> {
    page.fill(0);
    let mut page = Page(page);
    page.put(RSDP, &rsdp.to_le_bytes())?;
    page.put(BOOT_FLAG, &0xaa55u16.to_le_bytes())?;
    page.put(HEADER, b"HdrS")?;
    page.put(VERSION, &PROTOCOL.to_le_bytes())?;
    page.put(TYPE_OF_LOADER, &[LOADER_OTHER])?;
    page.put(LOAD_FLAGS, &[LOADED_HIGH])?;
    page.put(KERNEL_ALIGNMENT, &0x100_0000u32.to_le_bytes())?;
    page.put(SETUP_DATA, &setup_data.to_le_bytes())?;
    page.put_place(images.command_line(), COMMAND_LINE, COMMAND_LINE_SIZE)?;
    page.put_place(images.initrd(), RAMDISK_IMAGE, RAMDISK_SIZE)?;

    let mut count = 0u8;
    for entry in memory {
        let place = E820_TABLE + usize::from(count) * E820_ENTRY;
        page.put(place, &entry.start.to_le_bytes())?;
        page.put(place + 8, &entry.len.to_le_bytes())?;
        page.put(place + 16, &(entry.kind as u32).to_le_bytes())?;
        count = count.checked_add(1).ok_or(Stop::Tables)?;
    }
    page.put(E820_ENTRIES, &[count])
}

struct Page<'a>(&'a mut [u8]);

impl Page<'_> {
    fn put(&mut self, place: usize, bytes: &[u8]) -> Result<(), Stop> {
        let target = self.0.get_mut(place..place + bytes.len()).ok_or(Stop::Tables)?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    /// Puts an image's address and length, if there is one. Checked images are below 4 GiB.
    fn put_place(&mut self, image: Option<&Image>, address: usize, size: usize) -> Result<(), Stop> {
        let Some(image) = image else { return Ok(()) };
        let number = |value: u64| u32::try_from(value).map_err(|_| Stop::Tables);
        self.put(address, &number(image.target.start())?.to_le_bytes())?;
        self.put(size, &number(image.target.len())?.to_le_bytes())
    }
}
