//! The frequency of this machine's time stamp counter, which an emulated node's counter has, too.
//!
//! A node on a busy machine has been seen to measure a quarter of it at its start, so that its clock ran four times too
//! fast, and all that has a time limit failed. So it is told.
#![allow(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

/// How long is measured. A thread that loses its CPU for a millisecond between two readings makes it wrong by a hundredth.
const SPAN: Duration = Duration::from_millis(100);

/// Measures it, in kHz.
pub fn kilohertz() -> u64 {
    let (first, began) = reading();
    thread::sleep(SPAN);
    let (second, ended) = reading();
    let micros = ended.duration_since(began).as_micros().max(1);
    u64::try_from(u128::from(second.wrapping_sub(first)) * 1000 / micros).unwrap_or(u64::MAX)
}

/// The counter and the time at which it was read: of several readings the one that took the least.
fn reading() -> (u64, Instant) {
    let attempts = (0..16).map(|_| {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has this instruction, and Linux lets programs use it.
        let counter = unsafe { std::arch::x86_64::_rdtsc() };
        (before.elapsed(), counter, before)
    });
    let quickest = attempts.min_by_key(|(took, ..)| *took);
    quickest.map_or_else(|| (0, Instant::now()), |(_, counter, before)| (counter, before))
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_that_of_a_processor() {
        let found = super::kilohertz();
        assert!((100_000..20_000_000).contains(&found), "{found} kHz");
    }
}
