//! ACPI tables for the kernel of a confidential guest, which looks for no MP table: on SEV-SNP Linux leaves the search
//! out, and on TDX the other CPUs are woken through ACPI's mailbox.
//!
//! SECURITY: everything is made from measured numbers. A host has no say in AML, which runs in the kernel. The only
//! AML is a list of the virtio-mmio devices: the hardware-reduced machine has no interrupts whose numbers a kernel
//! knows without being told.
//!
//! Sections are those of the ACPI specification 6.5.

mod devices;
mod table;

use nacre_stage0_abi::{Parameters, layout};

use crate::guest::Platform;
use table::Table;

const LOCAL_APIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;

/// Where each table is, from [`layout::ACPI_TABLES`] on. The MADT is the last: its length depends on the CPUs.
const XSDT: usize = 0x40;
const FADT: usize = 0x80;
const DSDT: usize = 0x200;
const MADT: usize = 0x1000;

const fn address(offset: usize) -> u64 {
    layout::ACPI_TABLES + offset as u64
}

/// Writes all tables; the first bytes are the RSDP. `None` if there is too little room, or a number that a table has
/// no room for.
pub(super) fn write(place: &mut [u8], platform: Platform, parameters: &Parameters) -> Option<()> {
    rsdp(place.get_mut(..XSDT)?)?;
    let mut xsdt = Table::new(place.get_mut(XSDT..FADT)?, *b"XSDT", 1)?;
    xsdt.add(&address(FADT).to_le_bytes())?;
    xsdt.add(&address(MADT).to_le_bytes())?;
    xsdt.finish()?;
    fadt(place.get_mut(FADT..DSDT)?)?;
    let mut dsdt = Table::new(place.get_mut(DSDT..MADT)?, *b"DSDT", 2)?;
    devices::add(&mut dsdt, parameters)?;
    dsdt.finish()?;
    madt(place.get_mut(MADT..)?, platform, parameters.vcpus)
}

/// Section 5.2.5.3.
fn rsdp(place: &mut [u8]) -> Option<()> {
    let rsdp = place.get_mut(..36)?;
    table::put(rsdp, 0, b"RSD PTR ")?;
    table::put(rsdp, 9, table::OEM)?;
    table::put(rsdp, 15, &[2])?;
    table::put(rsdp, 20, &36u32.to_le_bytes())?;
    table::put(rsdp, 24, &address(XSDT).to_le_bytes())?;
    table::set_checksum(rsdp.get_mut(..20)?, 8)?;
    table::set_checksum(rsdp, 32)
}

/// Section 5.2.9: a hardware-reduced machine, which has none of the registers that the table could name.
fn fadt(place: &mut [u8]) -> Option<()> {
    const LENGTH: usize = 276;
    const REVISION: u8 = 6;
    const MINOR_REVISION: u8 = 5;
    /// There is neither VGA nor an RTC, nor an 8042.
    const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;
    /// WBINVD works; both buttons, if there were any, would be devices; hardware-reduced.
    const FLAGS: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 20;
    let mut fadt = Table::new(place, *b"FACP", REVISION)?;
    fadt.add(&[0; LENGTH - 36])?;
    let dsdt = address(DSDT);
    fadt.put(40, &u32::try_from(dsdt).ok()?.to_le_bytes())?;
    fadt.put(109, &BOOT_ARCHITECTURE.to_le_bytes())?;
    fadt.put(112, &FLAGS.to_le_bytes())?;
    fadt.put(131, &[MINOR_REVISION])?;
    fadt.put(140, &dsdt.to_le_bytes())?;
    fadt.finish()
}

/// Section 5.2.12.
fn madt(place: &mut [u8], platform: Platform, vcpus: u32) -> Option<()> {
    let mut madt = Table::new(place, *b"APIC", 5)?;
    madt.add(&LOCAL_APIC.to_le_bytes())?;
    // No flags: there is no 8259.
    madt.add(&[0; 4])?;
    for id in 0..vcpus {
        let id = u8::try_from(id).ok()?;
        madt.add(&[0, 8, id, id, 1, 0, 0, 0])?;
    }
    // An id that no CPU has.
    madt.add(&[1, 12, u8::try_from(vcpus).ok()?, 0])?;
    madt.add(&IOAPIC.to_le_bytes())?;
    madt.add(&[0; 4])?;
    if platform == Platform::Tdx {
        // The mailbox, version 0. With this entry a kernel uses no other way to start a CPU.
        madt.add(&[0x10, 16, 0, 0, 0, 0, 0, 0])?;
        madt.add(&layout::MAILBOX_PAGE.to_le_bytes())?;
    }
    madt.finish()
}

#[cfg(test)]
mod tests;
