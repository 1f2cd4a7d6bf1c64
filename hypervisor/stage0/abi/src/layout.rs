//! Where things are in the guest's physical address space while stage0 runs.
//!
//! Everything is fixed: an address that a host could choose would have to be checked.

use crate::range::AddressRange;

/// The measured page with the kernel, the initrd and the command line: where they are and their hashes.
pub const HASHES_PAGE: u64 = 0x1000;
/// The measured page with the memory map and the number of vCPUs.
pub const PARAMETERS_PAGE: u64 = 0x2000;
/// SEV-SNP: the page that the security processor fills with secrets, for the kernel's use.
pub const SECRETS_PAGE: u64 = 0x5000;
/// SEV-SNP: the page of CPUID values that the security processor checked.
pub const CPUID_PAGE: u64 = 0x6000;

/// Linux's `boot_params`, the "zero page".
pub const BOOT_PARAMS: u64 = 0x7000;
/// What the kernel needs beside `boot_params`: a GDT, and for SEV-SNP the node that leads to secrets and CPUID.
pub const HANDOVER_PAGE: u64 = 0x8000;
/// Six pages of page tables: PML4, page-directory pointers, and directories for the first 4 GiB.
pub const PAGE_TABLES: u64 = 0x9000;
/// How many pages of page tables there are.
pub const PAGE_TABLE_PAGES: u64 = 6;
/// TDX: the page through which the kernel wakes the other CPUs, which wait in stage0's image (ACPI 6.5, section
/// 5.2.12.19). They use the page tables before it.
pub const MAILBOX_PAGE: u64 = PAGE_TABLES + PAGE_TABLE_PAGES * crate::PAGE_SIZE;
/// stage0's variables and its stack, which begins at the end and grows down.
pub const STAGE0_DATA: AddressRange = AddressRange::between(0x1_0000, 0x2_0000);

/// The part of [`STAGE0_DATA`] that is used before memory is: the end of the stack.
pub const FIRST_STACK: AddressRange = AddressRange::between(0x1_c000, 0x2_0000);
/// TDX: the stacks of the other CPUs while they help to take memory into use; CPU 1's comes first. Nothing is loaded
/// until they have left.
pub const HELPER_STACKS: u64 = FIRST_LOAD;
/// The size of one of them.
pub const HELPER_STACK_SIZE: u64 = 2 << 10;

/// What stage0 takes into use before it can read the memory map, and writes without asking.
pub const SCRATCH: AddressRange = AddressRange::between(BOOT_PARAMS, STAGE0_DATA.end());
/// Nothing is loaded below: the launched pages and [`SCRATCH`] are there.
pub const FIRST_LOAD: u64 = STAGE0_DATA.end();

/// The PC's hole: no kernel takes it for memory, and stage0's tables for the kernel are in it.
pub const LEGACY_HOLE: AddressRange = AddressRange::between(0x9_f000, 0x10_0000);
/// The ACPI tables that stage0 makes, from the RSDP on.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// The MP table that stage0 makes: the start of the BIOS read-only area, where a kernel without ACPI searches
/// (MultiProcessor Specification 1.4, section 4).
pub const MP_TABLE: u64 = 0xf_0000;

/// No memory is here: the shared window, devices, interrupt controllers and stage0's image.
pub const DEVICE_GAP: AddressRange = AddressRange::between(0xC000_0000, 0x1_0000_0000);
/// Memory that is shared with the host from the start and holds the kernel, the initrd and the command line
/// until stage0 has its own copy of them.
pub const SHARED_WINDOW: AddressRange = AddressRange::between(0xC000_0000, 0xD000_0000);

/// The first virtio-mmio device's registers; the next device's follow.
pub const DEVICES: u64 = SHARED_WINDOW.end();
/// The size of one device's registers.
pub const DEVICE_SIZE: u64 = 0x1000;

/// stage0's image ends here, with the reset vector in its last sixteen bytes.
pub const IMAGE_END: u64 = 0x1_0000_0000;
/// The largest image: each KiB costs about a quarter of a millisecond of the security processor's time.
pub const IMAGE_LIMIT: u64 = 48 << 10;

/// The end of what stage0 maps, and so of the memory that a guest can have: one table of page-directory pointers.
pub const MEMORY_LIMIT: u64 = 1 << 39;
/// stage0 lives in the first 2 MiB, which must be memory.
pub const LEAST_LOW_MEMORY: u64 = 2 << 20;

const _: () = {
    assert!(DEVICE_GAP.contains(SHARED_WINDOW));
    assert!(PAGE_TABLES + PAGE_TABLE_PAGES * crate::PAGE_SIZE <= STAGE0_DATA.start());
    assert!(MAILBOX_PAGE + crate::PAGE_SIZE == STAGE0_DATA.start());
    assert!(FIRST_STACK.end() == STAGE0_DATA.end() && STAGE0_DATA.contains(FIRST_STACK));
    assert!(HELPER_STACKS + (crate::MAX_VCPUS as u64 - 1) * HELPER_STACK_SIZE <= LEGACY_HOLE.start());
    assert!(ACPI_TABLES >= LEGACY_HOLE.start() && ACPI_TABLES < MP_TABLE);
    assert!(CPUID_PAGE + crate::PAGE_SIZE == SCRATCH.start());
    assert!(LEGACY_HOLE.end() <= LEAST_LOW_MEMORY);
};
