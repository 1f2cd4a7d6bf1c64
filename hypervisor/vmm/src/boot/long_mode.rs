//! What a CPU needs in memory to start in 64-bit mode: descriptor table and identity page tables.
//!
//! Linux's 64-bit boot protocol (`Documentation/arch/x86/boot.rst`) wants flat segments with selectors 0x10 and
//! 0x18, and the first gigabyte mapped one to one, which covers the kernel, the zero page and the command line.

use kvm_bindings::kvm_segment;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout;
use crate::memory::GuestMemory;

/// Selector of the code segment.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segments.
pub const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task segment; VMX requires a loaded one.
pub const TASK_SELECTOR: u16 = 0x20;

/// Null twice, 64-bit code, data, and a busy 32-bit task segment at 0.
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];
/// The limit field of the table register.
pub const GDT_LIMIT: u16 = 5 * 8 - 1;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

/// Writes both tables.
///
/// # Errors
/// Guest memory does not reach there.
pub fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let gdt: Vec<u8> = DESCRIPTORS.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    memory.write_slice(&gdt, GuestAddress(layout::GDT))?;

    let pointers = layout::PAGE_TABLES + 0x1000;
    let directory = layout::PAGE_TABLES + 0x2000;
    memory.write_obj(pointers | PRESENT_WRITABLE, GuestAddress(layout::PAGE_TABLES))?;
    memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pointers))?;
    let entries: Vec<u8> =
        (0..512u64).flat_map(|page| (page << 21 | PRESENT_WRITABLE | LARGE_PAGE).to_le_bytes()).collect();
    memory.write_slice(&entries, GuestAddress(directory))
}

/// The 64-bit code segment as KVM wants it.
pub fn code_segment() -> kvm_segment {
    kvm_segment { type_: 0xb, l: 1, db: 0, selector: CODE_SELECTOR, ..flat() }
}

/// The data segment as KVM wants it.
pub fn data_segment() -> kvm_segment {
    kvm_segment { type_: 0x3, selector: DATA_SELECTOR, ..flat() }
}

/// A busy task segment as KVM wants it.
pub fn task_segment() -> kvm_segment {
    kvm_segment { type_: 0xb, s: 0, db: 0, selector: TASK_SELECTOR, ..flat() }
}

fn flat() -> kvm_segment {
    kvm_segment { base: 0, limit: 0xffff_ffff, present: 1, s: 1, g: 1, db: 1, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn the_first_gigabyte_is_mapped_one_to_one() {
        let memory = memory::allocate(64).unwrap();
        write(&memory).unwrap();
        let entry = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        for address in [0u64, 0x10_0000, 0x3fff_ffff] {
            let pointers = entry(layout::PAGE_TABLES) & !0xfff;
            let directory = entry(pointers) & !0xfff;
            let page = entry(directory + (address >> 21) * 8);
            assert_eq!(page & !0x1f_ffff, address & !0x1f_ffff);
            assert_eq!(page & 0x83, 0x83);
        }
    }

    #[test]
    fn the_descriptor_table_holds_what_the_segments_claim() {
        let memory = memory::allocate(64).unwrap();
        write(&memory).unwrap();
        for segment in [code_segment(), data_segment(), task_segment()] {
            let at = layout::GDT + u64::from(segment.selector);
            let raw = memory.read_obj::<u64>(GuestAddress(at)).unwrap();
            assert_eq!(raw >> 40 & 0xf, u64::from(segment.type_));
            assert_eq!(raw >> 47 & 1, u64::from(segment.present));
            assert_eq!(raw >> 53 & 1, u64::from(segment.l));
        }
    }
}
