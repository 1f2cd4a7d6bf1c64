//! The parts of stage0's work, which it tells on a machine without confidential memory: for measurements.

/// The PC's diagnostic port.
pub const STEP_PORT: u16 = 0x80;

/// A part of the work that is done. Its number is written to [`STEP_PORT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Everything: the kernel's first instruction is next.
    Done = 0x30,
    /// The entry, the parameters page, and page tables for all memory.
    Tables = 0x31,
    /// All memory was taken into use.
    Memory = 0x32,
    /// An image was copied.
    Copied = 0x33,
    /// An image was hashed and is right.
    Hashed = 0x34,
}

impl Step {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::Done, Self::Tables, Self::Memory, Self::Copied, Self::Hashed];

    /// The part that a number stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }
}
