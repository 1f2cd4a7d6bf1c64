//! What a process takes of the node's memory, apart from its guest's memory.

use std::fs;

use crate::failure::Failure;

/// In KiB.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The proportional share of all mappings but the guest's memory.
    pub own: u64,
    /// What the guest has touched of its memory.
    pub guest: u64,
}

/// Of this process. Its guest's memory is the mapping of exactly `guest` KiB, if it has a guest.
pub fn of(pid: u32, guest: Option<u64>) -> Result<Memory, Failure> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).map_err(Failure::io(path))?;
    Ok(sum(&text, guest))
}

fn sum(smaps: &str, guest: Option<u64>) -> Memory {
    let mut memory = Memory::default();
    let mut size = None;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
            // The first of a mapping's numbers.
            (Some("Size:"), value) => size = value,
            (Some("Rss:"), Some(value)) if guest.is_some() && size == guest => memory.guest += value,
            (Some("Pss:"), Some(value)) if guest.is_none() || size != guest => memory.own += value,
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
        assert_eq!(sum(smaps, Some(262_144)), Memory { own: 700, guest: 50000 });
        assert_eq!(sum(smaps, None), Memory { own: 49700, guest: 0 });
    }
}
