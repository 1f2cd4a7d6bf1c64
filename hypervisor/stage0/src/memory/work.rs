//! Memory behind the first 2 MiB, which several CPUs take into use together.
//!
//! A page costs its CPU an instruction, and on today's hosts, which have private memory in small pages, a fault in
//! the host as well. Both happen for different pages at the same time on as many CPUs as there are.
//!
//! That is the design for much memory, too: 64 GiB are 32,768 calls where the host has large pages, and 16.8 million
//! where it has small ones, each with a fault of some microseconds unless the VMM has prefaulted the memory
//! (KVM_PRE_FAULT_MEMORY, in parallel as well). In the harness four CPUs
//! take 22 to 29 % of 64 GiB each. It can't show the gain in time: its model answers one call after the other, and four
//! CPUs need as long as one (9 s in the emulated node).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{AddressRange, MemoryMap, layout};

use super::take;
use crate::guest::Validate;

/// What a CPU takes at once: little enough that all have finished at about the same time, and so much that the CPUs
/// seldom meet. Large pages lie in one piece.
const PIECE: u64 = 32 << 20;

/// Pieces of memory to be handed out.
#[derive(Debug)]
pub struct Work<'a> {
    memory: &'a MemoryMap,
    next: AtomicU64,
    /// Zero, or the [`Stop::port_value`] of what went wrong.
    stop: AtomicU32,
}

impl<'a> Work<'a> {
    pub(crate) const fn new(memory: &'a MemoryMap) -> Self {
        Self { memory, next: AtomicU64::new(0), stop: AtomicU32::new(0) }
    }

    /// Takes pieces into use until there are no more, or until something is wrong.
    pub fn take_part(&self, cpu: &mut impl Validate) {
        while self.stop.load(Ordering::Relaxed) == 0 {
            // No two CPUs get the same number, so each piece is taken once.
            let Some(piece) = self.piece(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(stop) = take(cpu, piece.start(), piece.end()) {
                self.stop.store(stop.port_value(), Ordering::Relaxed);
            }
        }
    }

    /// How it went, when no CPU is at it any more.
    pub(crate) fn result(&self) -> Result<(), Stop> {
        match self.stop.load(Ordering::Relaxed) {
            0 => Ok(()),
            value => Err(Stop::from_port(value).unwrap_or(Stop::NotValidated)),
        }
    }

    /// The piece with this number: pieces are cut at multiples of [`PIECE`].
    fn piece(&self, number: u64) -> Option<AddressRange> {
        let mut before = 0;
        for range in self.memory.iter() {
            let (start, end) = (range.start().max(layout::LEAST_LOW_MEMORY), range.end());
            if start >= end {
                continue;
            }
            let first = start / PIECE;
            let count = end.div_ceil(PIECE) - first;
            if number - before < count {
                let index = first + (number - before);
                let (from, to) = (start.max(index * PIECE), end.min((index + 1) * PIECE));
                return AddressRange::new(from, to - from);
            }
            before += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::thread;

    use nacre_stage0_abi::MemoryMap;

    use super::*;
    use crate::guest::{PageSize, Validation};

    const MIB: u64 = 1 << 20;

    struct Cpu<'a> {
        pages: &'a Mutex<BTreeMap<u64, u32>>,
        refuses: Option<u64>,
    }

    impl Validate for Cpu<'_> {
        fn validate(&mut self, page: u64, size: PageSize) -> Validation {
            if self.refuses == Some(page) {
                return Validation::DoneBefore;
            }
            let mut pages = self.pages.lock().unwrap();
            for small in (page..page + size.bytes()).step_by(4096) {
                *pages.entry(small).or_default() += 1;
            }
            Validation::Done
        }
    }

    fn run(map: &MemoryMap, cpus: u32, refuses: Option<u64>) -> (BTreeMap<u64, u32>, Result<(), Stop>) {
        let work = Work::new(map);
        let pages = Mutex::default();
        thread::scope(|scope| {
            for _ in 0..cpus {
                scope.spawn(|| work.take_part(&mut Cpu { pages: &pages, refuses }));
            }
        });
        (pages.into_inner().unwrap(), work.result())
    }

    #[test]
    fn several_cpus_take_every_page_once() {
        let map = MemoryMap::new([(0, 70 * MIB), (72 * MIB, 0x3000), (1 << 32, 33 * MIB + 0x1000)]).unwrap();
        let expected: Vec<u64> =
            map.iter().flat_map(|range| (range.start().max(2 * MIB)..range.end()).step_by(4096)).collect();
        for cpus in [1, 2, 7] {
            let (pages, result) = run(&map, cpus, None);
            assert_eq!(result, Ok(()));
            assert!(pages.values().all(|count| *count == 1));
            assert!(pages.keys().eq(&expected), "{cpus} CPUs");
        }
    }

    #[test]
    fn what_one_cpu_finds_stops_all() {
        let map = MemoryMap::new([(0, 1 << 30)]).unwrap();
        let (pages, result) = run(&map, 3, Some(32 * MIB));
        assert_eq!(result, Err(Stop::ValidatedBefore));
        assert!(pages.len() < (1 << 30) / 4096);
    }

    #[test]
    fn little_memory_is_no_work() {
        let map = MemoryMap::new([(0, 2 * MIB)]).unwrap();
        assert_eq!(run(&map, 2, None), (BTreeMap::new(), Ok(())));
    }
}
