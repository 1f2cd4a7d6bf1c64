//! Memory behind the first 2 MiB, which several CPUs take into use together.
//!
//! A page costs its CPU an instruction, and on today's hosts, which have private memory in small pages, a fault in
//! the host as well. Both happen for different pages at the same time on as many CPUs as there are.
//!
//! That is the design for much memory, too. Counted on the model (`each_page_of_64_gib_is_taken_once`), 64 GiB are:
//!
//! | the host has | pieces | calls (TDCALL or PVALIDATE) | of them refused for the size | bytes by a call |
//! |---|---|---|---|---|
//! | large pages | 2,048 | 32,767 | 0 | 2 MiB |
//! | small pages | 2,048 | 16,809,471 | 32,767, one for each 2 MiB | 4 KiB |
//!
//! The work that cannot be done in parallel is one addition for each piece, and the first 2 MiB before it. With small pages
//! each call has a fault of some microseconds in the host, unless the VMM has prefaulted the memory
//! (KVM_PRE_FAULT_MEMORY, by the threads of the CPUs that have not started yet); what is left then is the instruction. A
//! guest with this much memory has more CPUs than one, and its time for this is divided by their number: 16 CPUs take
//! about 1,050,600 calls each. In the harness four CPUs take 22 to 29 % of 64 GiB each. It can't show the gain in time: its
//! model answers one call after the other, and four CPUs need as long as one (9 s in the emulated node).

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
    use rstest::rstest;

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

    /// Counts without keeping a list: a bit for each page, and whether one was set before.
    struct Counting<'a> {
        small: bool,
        bits: &'a [AtomicU64],
        twice: &'a AtomicU64,
        calls: &'a AtomicU64,
        refused: &'a AtomicU64,
    }

    impl Validate for Counting<'_> {
        fn validate(&mut self, page: u64, size: PageSize) -> Validation {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.small && size == PageSize::Large {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Validation::OtherSize;
            }
            // Large pages are 512 bits, which are whole words.
            let (first, bits) = (page / 4096, size.bytes() / 4096);
            let mask = if bits == 1 { 1 << (first % 64) } else { u64::MAX };
            for word in first / 64..(first + bits).div_ceil(64) {
                let before = self.bits[usize::try_from(word).unwrap()].fetch_or(mask, Ordering::Relaxed);
                self.twice.fetch_add(u64::from(before & mask != 0), Ordering::Relaxed);
            }
            Validation::Done
        }
    }

    #[rstest]
    #[case::large(false, 32_767, 0)]
    #[case::small(true, 16_809_471, 32_767)]
    fn each_page_of_64_gib_is_taken_once(#[case] small: bool, #[case] calls: u64, #[case] refused: u64) {
        const GIB: u64 = 1 << 30;
        let map = MemoryMap::new([(0, 3 * GIB), (4 * GIB, 61 * GIB)]).unwrap();
        let bits: Vec<AtomicU64> = (0..65 * GIB / 4096 / 64).map(|_| AtomicU64::new(0)).collect();
        let numbers: [AtomicU64; 3] = Default::default();
        let [twice, called, other_size] = &numbers;
        let work = Work::new(&map);
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut cpu = Counting { small, bits: &bits, twice, calls: called, refused: other_size };
                let work = &work;
                scope.spawn(move || work.take_part(&mut cpu));
            }
        });
        assert_eq!(work.result(), Ok(()));
        let taken: u64 = bits.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum();
        assert_eq!(taken * 4096, 64 * GIB - 2 * MIB, "all but what is taken before");
        assert_eq!(numbers.each_ref().map(|number| number.load(Ordering::Relaxed)), [0, calls, refused]);
    }

    #[test]
    fn little_memory_is_no_work() {
        let map = MemoryMap::new([(0, 2 * MIB)]).unwrap();
        assert_eq!(run(&map, 2, None), (BTreeMap::new(), Ok(())));
    }
}
