//! The IOAPIC's registers (Intel 82093AA data sheet, section 3) and the messages that they stand for.
//!
//! SECURITY: the guest writes them. Any value is a message that KVM takes: a guest can interrupt itself in every way, and
//! nobody else.

/// As many as KVM's IOAPIC has.
pub const PINS: u32 = 24;

/// Selects a register for the window.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
/// Two registers for each pin, the lower half first.
const FIRST_ENTRY: u8 = 0x10;

/// Without an EOI register; the last pin in bits 23:16.
const VERSION_VALUE: u32 = (PINS - 1) << 16 | 0x11;
const ID_BITS: u32 = 0xf << 24;

const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR, which only the hardware sets: no interrupt waits here.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;
/// Bits 31:17 and 55:32 are reserved.
const WRITABLE: u64 = 0xff00_0000_0001_ffff & !READ_ONLY;
const DESTINATION_SHIFT: u32 = 56;
const LOGICAL: u64 = 1 << 11;
/// Vector and delivery mode.
const DATA: u64 = 0x7ff;

/// An interrupt as a message to the local APICs (Intel SDM volume 3, section 11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Bits 31:0 of the address; the others are zero.
    pub address: u32,
    /// What is written there.
    pub data: u32,
}

impl Message {
    /// The local APICs' address, in whose bits 19:12 a destination is.
    const LOCAL_APICS: u32 = 0xfee0_0000;

    /// An interrupt for one CPU.
    #[must_use]
    pub fn for_cpu(cpu: u8, vector: u8) -> Self {
        Self { address: Self::LOCAL_APICS | u32::from(cpu) << 12, data: vector.into() }
    }
}

/// The registers.
#[derive(Debug)]
pub struct Registers {
    selected: u8,
    id: u32,
    entries: [u64; PINS as usize],
}

impl Default for Registers {
    /// After a reset: all pins are masked.
    fn default() -> Self {
        Self { selected: 0, id: 0, entries: [MASKED; PINS as usize] }
    }
}

impl Registers {
    /// The guest reads at an offset of the IOAPIC's page.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        match (offset, self.selected) {
            (SELECT, selected) => selected.into(),
            (WINDOW, ID | ARBITRATION) => self.id,
            (WINDOW, VERSION) => VERSION_VALUE,
            (WINDOW, selected) => match self.entry(selected) {
                Some((pin, shift)) => {
                    let entry = self.entries.get(pin).copied().unwrap_or_default();
                    u32::try_from(entry >> shift & u64::from(u32::MAX)).unwrap_or_default()
                }
                None => 0,
            },
            _ => 0,
        }
    }

    /// The guest writes at an offset of the IOAPIC's page. The pin comes back whose entry it wrote.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<u32> {
        match (offset, self.selected) {
            (SELECT, _) => self.selected = value.to_le_bytes()[0],
            (WINDOW, ID) => self.id = value & ID_BITS,
            (WINDOW, selected) => {
                let (pin, shift) = self.entry(selected)?;
                let entry = self.entries.get_mut(pin)?;
                let kept = *entry & !(u64::from(u32::MAX) << shift);
                *entry = (kept | u64::from(value) << shift) & WRITABLE;
                return u32::try_from(pin).ok();
            }
            _ => {}
        }
        None
    }

    /// The pin that a register is a half of, and the half's first bit.
    fn entry(&self, register: u8) -> Option<(usize, u32)> {
        let index = register.checked_sub(FIRST_ENTRY)?;
        let pin = usize::from(index / 2);
        (pin < self.entries.len()).then_some((pin, u32::from(index % 2) * 32))
    }

    /// What an interrupt at the pin sends; nothing while it is masked.
    ///
    /// Polarity and trigger mode are left out: each interrupt of a device here is an edge, and would be one if the guest
    /// called it a level.
    #[must_use]
    pub fn message(&self, pin: u32) -> Option<Message> {
        const LOGICAL_ADDRESS: u64 = 1 << 2;
        let entry = *self.entries.get(usize::try_from(pin).ok()?)?;
        if entry & MASKED != 0 {
            return None;
        }
        let mode = if entry & LOGICAL != 0 { LOGICAL_ADDRESS } else { 0 };
        let address = u64::from(Message::LOCAL_APICS) | (entry >> DESTINATION_SHIFT) << 12 | mode;
        Some(Message { address: u32::try_from(address).ok()?, data: u32::try_from(entry & DATA).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn read(registers: &mut Registers, register: u32) -> u32 {
        registers.write(0, register);
        registers.read(0x10)
    }

    fn write(registers: &mut Registers, register: u32, value: u32) -> Option<u32> {
        registers.write(0, register);
        registers.write(0x10, value)
    }

    #[test]
    fn after_a_reset_every_pin_is_masked() {
        let mut registers = Registers::default();
        // Version 0x11, entries 0 to 23: what the MP table says as well.
        assert_eq!(read(&mut registers, 1), 0x0017_0011);
        for pin in 0..PINS {
            assert_eq!(read(&mut registers, 0x10 + 2 * pin), 0x1_0000);
            assert_eq!(read(&mut registers, 0x11 + 2 * pin), 0);
            assert_eq!(registers.message(pin), None);
        }
    }

    #[rstest]
    #[case::physical(0x0000_0031, 0x0300_0000, 0xfee0_3000, 0x31)]
    #[case::logical_lowest_priority(0x0000_0931, 0xff00_0000, 0xfeef_f004, 0x131)]
    #[case::non_maskable(0x0000_0400, 0, 0xfee0_0000, 0x400)]
    #[case::level_and_low(0x0000_a031, 0x0100_0000, 0xfee0_1000, 0x31)]
    fn an_entry_is_a_message(#[case] low: u32, #[case] high: u32, #[case] address: u32, #[case] data: u32) {
        let mut registers = Registers::default();
        assert_eq!(write(&mut registers, 0x11 + 2 * 5, high), Some(5));
        assert_eq!(registers.message(5), None);
        assert_eq!(write(&mut registers, 0x10 + 2 * 5, low), Some(5));
        assert_eq!(registers.message(5), Some(Message { address, data }));
        assert_eq!((registers.message(4), registers.message(6)), (None, None));
        write(&mut registers, 0x10 + 2 * 5, low | 0x1_0000);
        assert_eq!(registers.message(5), None);
    }

    #[test]
    fn what_only_hardware_sets_can_not_be_written() {
        let mut registers = Registers::default();
        write(&mut registers, 0x10, u32::MAX);
        write(&mut registers, 0x11, u32::MAX);
        assert_eq!(read(&mut registers, 0x10), 0x1_afff);
        assert_eq!(read(&mut registers, 0x11), 0xff00_0000);
        write(&mut registers, 0, u32::MAX);
        write(&mut registers, 1, 0);
        assert_eq!(read(&mut registers, 0), 0x0f00_0000);
        assert_eq!(read(&mut registers, 1), 0x0017_0011);
    }

    proptest! {
        #[test]
        fn no_access_panics_or_makes_another_pin(
            accesses in prop::collection::vec((any::<u64>(), 0..0x20u64, any::<bool>(), any::<u32>()), 0..200),
        ) {
            let mut registers = Registers::default();
            for (far, near, is_far, value) in accesses {
                let offset = if is_far { far } else { near };
                let _ = registers.read(offset);
                if let Some(pin) = registers.write(offset, value) {
                    prop_assert!(pin < PINS);
                }
                for pin in 0..64 {
                    if let Some(message) = registers.message(pin) {
                        prop_assert!(pin < PINS);
                        prop_assert_eq!(message.address & !0x000f_f004, 0xfee0_0000);
                        prop_assert_eq!(message.data & !0x7ff, 0);
                    }
                }
            }
        }
    }
}
