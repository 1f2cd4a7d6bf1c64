//! What a pod takes of the node's memory.

use std::iter::Sum;

/// In KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// The proportional share of all mappings of shim and VMM but the guest's memory.
    pub overhead_kib: u64,
    /// What the guest has touched of its memory.
    pub guest_kib: u64,
}

impl Memory {
    /// All of it.
    pub const fn total_kib(self) -> u64 {
        self.overhead_kib + self.guest_kib
    }

    /// Of a process. Its guest's memory is the mapping of exactly `guest_kib`, if it has a guest. `None` without the
    /// right to look, or without the process.
    pub(super) fn of(pid: u32, guest_kib: Option<u64>) -> Option<Self> {
        Some(sum(&std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?, guest_kib))
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            overhead_kib: sum.overhead_kib + one.overhead_kib,
            guest_kib: sum.guest_kib + one.guest_kib,
        })
    }
}

fn sum(smaps: &str, guest_kib: Option<u64>) -> Memory {
    let (mut memory, mut is_guest) = (Memory::default(), false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
            // The first of a mapping's numbers.
            (Some("Size:"), size) => is_guest = guest_kib.is_some() && size == guest_kib,
            (Some("Rss:"), Some(kib)) if is_guest => memory.guest_kib += kib,
            (Some("Pss:"), Some(kib)) if !is_guest => memory.overhead_kib += kib,
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_memory_is_told_from_the_vmms_own() {
        let smaps = "7f00-7f01 rw-p 0 00:00 0 \nSize:  262144 kB\nRss: 50000 kB\nPss:   49000 kB\n\
                     5500-5501 r-xp 0 08:01 7 /bin/x\nSize: 2000 kB\nRss: 900 kB\nPss:  700 kB\n";
        assert_eq!(sum(smaps, Some(262_144)), Memory { overhead_kib: 700, guest_kib: 50000 });
        assert_eq!(sum(smaps, None).total_kib(), 49700);
    }
}
