//! Bytes that are the same each time and repeat nowhere, so that loss, doubling and reordering all show.

/// The stream, piece by piece.
pub struct Pattern {
    state: u64,
    pending: [u8; 8],
    used: usize,
}

impl Default for Pattern {
    fn default() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, pending: [0; 8], used: 8 }
    }
}

impl Pattern {
    /// The next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            if self.used == self.pending.len() {
                self.advance();
            }
            let fresh = self.pending.get(self.used..).unwrap_or_default();
            let count = fresh.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(fresh.get(..count).unwrap_or_default());
            self.used += count;
            rest = later;
        }
    }

    /// Xorshift: the cheapest generator whose period no test comes near.
    fn advance(&mut self) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.pending = self.state.to_le_bytes();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_join_to_the_same_stream() {
        let mut whole = vec![0; 1000];
        Pattern::default().fill(&mut whole);
        let mut pieces = Pattern::default();
        let mut joined = Vec::new();
        for size in [1, 7, 8, 9, 100, 875] {
            let mut piece = vec![0; size];
            pieces.fill(&mut piece);
            joined.extend(piece);
        }
        assert_eq!(joined, whole);
        assert_ne!(whole[..8], whole[8..16]);
    }
}
