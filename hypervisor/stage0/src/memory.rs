//! Taking private memory into use.
//!
//! SECURITY: a page that is validated twice, at two addresses or after it was in use, lets a host exchange its
//! content. Each page of the memory map is validated once; those that were launched or that the entry took are
//! left out, and a page that turns out to be valid already is an attack.

use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{MemoryMap, PAGE_SIZE, layout};

use crate::guest::{Guest, PageSize, Validation};

/// What is in use before: the launched pages, and what the entry's first instructions took for stage0. Ascending.
const IN_USE: [(u64, u64); 3] = [
    (layout::HASHES_PAGE, layout::PARAMETERS_PAGE + PAGE_SIZE),
    (layout::SECRETS_PAGE, layout::CPUID_PAGE + PAGE_SIZE),
    (layout::SCRATCH.start(), layout::SCRATCH.end()),
];

/// Takes all memory of the map into use that is not in use yet.
pub fn take_into_use(guest: &mut impl Guest, map: &MemoryMap) -> Result<(), Stop> {
    for range in map.iter() {
        let mut from = range.start();
        for (start, end) in IN_USE {
            if range.start() <= start && end <= range.end() {
                take(guest, from, start)?;
                from = end;
            }
        }
        take(guest, from, range.end())?;
    }
    Ok(())
}

/// Takes the pages from one address up to another, large ones where that is possible.
fn take(guest: &mut impl Guest, from: u64, to: u64) -> Result<(), Stop> {
    let large = PageSize::Large.bytes();
    let mut page = from;
    // The host has this 2 MiB in small pages.
    let mut small_until = from;
    while page < to {
        let whole = page.is_multiple_of(large) && to - page >= large && page >= small_until;
        let size = if whole { PageSize::Large } else { PageSize::Small };
        match guest.validate(page, size) {
            Validation::Done => page += size.bytes(),
            Validation::OtherSize if whole => small_until = page + large,
            Validation::DoneBefore => return Err(Stop::ValidatedBefore),
            Validation::OtherSize | Validation::Refused => return Err(Stop::NotValidated),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
