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
/// Memory above the PC's hole; the kernel is linked to run beyond it.
pub const EXTENDED_MEMORY: u64 = 0x10_0000;

/// Three pages that KVM needs on Intel processors without unrestricted guests, outside of everything else.
pub const KVM_TSS: usize = 0xFFFB_D000;
