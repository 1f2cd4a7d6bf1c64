//! Where the guest's virtio-mmio devices are. Their places are words of the kernel command line, which is measured.

use std::ops::Range;

use nacre_stage0_abi::layout;

/// The first device; one every [`STRIDE`] bytes.
pub const FIRST: u64 = layout::DEVICES;
/// The register window of one device.
pub const STRIDE: u64 = layout::DEVICE_SIZE;
/// The first device's global system interrupt; the ones below belong to the PC's timer and friends.
pub const FIRST_INTERRUPT: u32 = 5;
/// How many devices there are interrupts for: KVM's in-kernel IOAPIC has 24 pins.
pub const MOST: u32 = 19;

/// The first register and the interrupt of a device, by its number.
#[must_use]
pub const fn place(number: u32) -> (u64, u32) {
    (FIRST + STRIDE * number as u64, FIRST_INTERRUPT + number)
}

/// The interrupts of this many devices.
#[must_use]
pub const fn interrupts(count: u32) -> Range<u32> {
    FIRST_INTERRUPT..FIRST_INTERRUPT + count
}
