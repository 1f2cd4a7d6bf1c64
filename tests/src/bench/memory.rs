//! What a process takes of the node's memory, apart from its guest's memory.

use std::fs;

use crate::failure::Failure;

/// What the VMM calls the mapping that is its guest's memory.
const GUEST: &str = "[anon:nacre-guest]";

/// In KiB.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The proportional share of all mappings but the guest's memory.
    pub own: u64,
    /// What the guest has touched of its memory.
    pub guest: u64,
}

/// Of this process.
pub fn of(pid: u32) -> Result<Memory, Failure> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).map_err(Failure::io(path))?;
    Ok(sum(&text))
}

fn sum(smaps: &str) -> Memory {
    let mut memory = Memory::default();
    let mut of_guest = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (name, value) =
            (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse::<u64>().ok()));
        match (name, value) {
            ("Rss:", Some(value)) if of_guest => memory.guest += value,
            ("Pss:", Some(value)) if !of_guest => memory.own += value,
            // A mapping's first line is its addresses, the others' first word ends with a colon.
            (name, _) if !name.ends_with(':') => of_guest = line.ends_with(GUEST),
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
        let smaps = "7f00-7f01 rw-p 0 00:00 0      [anon:nacre-guest]\nSize:  262144 kB\nRss: 50000 kB\nPss:   49000 kB\n\
                     VmFlags: rd wr\n5500-5501 r-xp 0 08:01 7 /bin/x\nSize: 2000 kB\nRss: 900 kB\nPss:  700 kB\n";
        assert_eq!(sum(smaps), Memory { own: 700, guest: 50000 });
    }
}
