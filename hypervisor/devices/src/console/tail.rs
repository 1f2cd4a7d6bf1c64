//! The last of what a guest printed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are kept.
const KEPT: usize = 4096;

/// The end of the console's output, for a report on how the guest ended. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct ConsoleTail {
    /// At most [`KEPT`] bytes; held for a copy only.
    bytes: Arc<Mutex<VecDeque<u8>>>,
}

impl ConsoleTail {
    /// What was printed last, at most 4 KiB. Made printable: line breaks stay, any other control character
    /// and what isn't UTF-8 is replaced.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = {
            let kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().copied().collect()
        };
        // One replacement for each byte keeps the promised length.
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\r' => {}
                    '\n' | '\t' => text.push(character),
                    other if other.is_control() => text.push('?'),
                    other => text.push(other),
                }
            }
            text.extend(chunk.invalid().iter().map(|_| '?'));
        }
        text
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        let new = bytes.get(bytes.len().saturating_sub(KEPT)..).unwrap_or(bytes);
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (kept.len() + new.len()).saturating_sub(KEPT);
        kept.drain(..excess);
        kept.extend(new);
    }
}
