//! Where things are in the guest's physical address space.

/// Below this address memory is contiguous; what does not fit goes to [`HIGH_MEMORY`].
pub const LOW_MEMORY_END: u64 = 0xC000_0000;
/// Memory beyond the gap for devices.
pub const HIGH_MEMORY: u64 = 0x1_0000_0000;

/// The global descriptor table for the first instructions.
pub const GDT: u64 = 0x500;
/// Linux's `boot_params`, the "zero page".
pub const ZERO_PAGE: u64 = 0x7000;
/// The first of three pages of page tables: PML4, page-directory pointers, page directory.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// End of the memory below the PC's hole.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// The MP table: the start of the BIOS read-only area, where an operating system searches for it
/// (MultiProcessor Specification 1.4, section 4).
pub const MP_TABLE: u64 = 0xf_0000;
/// Memory above the PC's hole; the kernel is linked to run beyond it.
pub const EXTENDED_MEMORY: u64 = 0x10_0000;

/// The first virtio-mmio device; one every [`DEVICE_STRIDE`] bytes.
pub const DEVICES: u64 = 0xD000_0000;
/// The register window of one device.
pub const DEVICE_STRIDE: u64 = 0x1000;
/// The first device's global system interrupt; the ones below belong to the PC's timer and friends.
pub const FIRST_INTERRUPT: u32 = 5;
/// KVM's in-kernel IOAPIC has 24 pins.
pub const LAST_INTERRUPT: u32 = 23;
/// How many devices there are interrupts for.
pub const MAX_DEVICES: usize = 19;

/// Where KVM puts its IOAPIC.
pub const IOAPIC: u32 = 0xFEC0_0000;
/// Where every CPU sees its local APIC.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Three pages that KVM needs on Intel processors without unrestricted guests, outside of everything else.
pub const KVM_TSS: usize = 0xFFFB_D000;
