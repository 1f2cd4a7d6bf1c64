//! The list of virtio-mmio devices in AML (ACPI 6.5, section 20.2): a scope with one device for each interrupt.

use nacre_stage0_abi::{Parameters, layout};

use super::table::Table;

/// `Device (V0nn) { Name (_HID, "LNRO0005") Name (_UID, nn) Name (_CRS, …) }` without what differs.
const DEVICE: usize = 61;
/// `Scope (\_SB)` with a length of two bytes.
const SCOPE: usize = 8;

/// Appends the list.
pub(super) fn add(dsdt: &mut Table<'_>, parameters: &Parameters) -> Option<()> {
    let count = usize::try_from(parameters.interrupts).ok()?;
    // The length counts itself, but not the opcode before it: four bits, then eight.
    let len = SCOPE - 1 + count * DEVICE;
    let low = u8::try_from(len & 0xf).ok()?;
    dsdt.add(&[0x10, 0x40 | low, u8::try_from(len >> 4).ok()?])?;
    dsdt.add(b"\\_SB_")?;
    for number in 0..parameters.interrupts {
        device(dsdt, number, parameters.first_interrupt.checked_add(number)?)?;
    }
    Some(())
}

fn device(dsdt: &mut Table<'_>, number: u32, interrupt: u32) -> Option<()> {
    const MEMORY_32_FIXED: [u8; 4] = [0x86, 9, 0, 1];
    /// A consumer's interrupt, edge-triggered, active high, exclusive: as KVM's irqfd gives it.
    const INTERRUPT: [u8; 5] = [0x89, 6, 0, 0b0011, 1];
    const END: [u8; 2] = [0x79, 0];
    let unit = u8::try_from(number).ok()?;
    let start = layout::DEVICES.checked_add(u64::from(number) * layout::DEVICE_SIZE)?;
    let len = u32::try_from(layout::DEVICE_SIZE).ok()?;
    let hexadecimal = |digit: u8| if digit < 10 { b'0' + digit } else { b'A' + digit - 10 };

    dsdt.add(&[0x5b, 0x82, 59, b'V', b'0', hexadecimal(unit >> 4), hexadecimal(unit & 0xf)])?;
    dsdt.add(b"\x08_HID\x0dLNRO0005\0")?;
    dsdt.add(b"\x08_UID\x0a")?;
    dsdt.add(&[unit])?;
    // A buffer of 23 bytes.
    dsdt.add(b"\x08_CRS\x11\x1a\x0a\x17")?;
    dsdt.add(&MEMORY_32_FIXED)?;
    dsdt.add(&u32::try_from(start).ok()?.to_le_bytes())?;
    dsdt.add(&len.to_le_bytes())?;
    dsdt.add(&INTERRUPT)?;
    dsdt.add(&interrupt.to_le_bytes())?;
    dsdt.add(&END)
}
