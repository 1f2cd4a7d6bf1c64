//! A table with ACPI's common header (ACPI 6.5, section 5.2.6).

/// Six bytes that say who made a table.
pub(super) const OEM: &[u8; 6] = b"NACRE ";
const HEADER: usize = 36;

/// A table that grows in its place.
pub(super) struct Table<'a> {
    place: &'a mut [u8],
    len: usize,
}

impl<'a> Table<'a> {
    /// A table that is only a header. The place must be zero.
    pub(super) fn new(place: &'a mut [u8], signature: [u8; 4], revision: u8) -> Option<Self> {
        let mut table = Self { place, len: HEADER };
        table.put(0, &signature)?;
        table.put(8, &[revision])?;
        table.put(10, OEM)?;
        table.put(16, b"NACRE VM")?;
        table.put(24, &1u32.to_le_bytes())?;
        table.put(28, b"NACR")?;
        table.put(32, &1u32.to_le_bytes())?;
        Some(table)
    }

    /// Appends bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Option<()> {
        put(self.place, self.len, bytes)?;
        self.len += bytes.len();
        Some(())
    }

    /// Writes bytes at a place that the table has.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        put(self.place.get_mut(..self.len)?, at, bytes)
    }

    /// Writes length and checksum.
    pub(super) fn finish(self) -> Option<()> {
        let table = self.place.get_mut(..self.len)?;
        put(table, 4, &u32::try_from(self.len).ok()?.to_le_bytes())?;
        set_checksum(table, 9)
    }
}

/// Writes bytes at a place.
pub(super) fn put(target: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    target.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

/// Sets the byte at `at` so that all bytes add up to zero.
pub(super) fn set_checksum(bytes: &mut [u8], at: usize) -> Option<()> {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let place = bytes.get_mut(at)?;
    *place = place.wrapping_sub(sum);
    Some(())
}
