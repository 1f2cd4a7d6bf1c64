//! Taking private memory into use.
//!
//! SECURITY: a page that is validated twice, at two addresses or after it was in use, lets a host exchange its
//! content. Each page of the memory map is validated once; those that were launched or that the entry took are
//! left out, and a page that turns out to be valid already is an attack.

mod work;

use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{AddressRange, PAGE_SIZE, Parameters, layout};

use crate::guest::{Guest, PageSize, Platform, Validate, Validation};
pub use work::Work;

/// What is in use before: the launched pages, and what the entry's first instructions took for stage0. Ascending,
/// and all of it in the first 2 MiB.
const fn in_use(platform: Platform) -> [(u64, u64); 3] {
    const MEASURED: (u64, u64) = (layout::HASHES_PAGE, layout::PARAMETERS_PAGE + PAGE_SIZE);
    match platform {
        Platform::Plain | Platform::Snp => [
            MEASURED,
            (layout::SECRETS_PAGE, layout::CPUID_PAGE + PAGE_SIZE),
            (layout::SCRATCH.start(), layout::SCRATCH.end()),
        ],
        // Nothing can be accepted before 64-bit mode, so what leads there was launched.
        Platform::Tdx => [
            MEASURED,
            (layout::PAGE_TABLES, layout::MAILBOX_PAGE),
            (layout::FIRST_STACK.start(), layout::FIRST_STACK.end()),
        ],
    }
}

/// Takes all memory of the map into use that is not in use yet.
pub fn take_into_use(
    guest: &mut impl Guest,
    platform: Platform,
    parameters: &Parameters,
) -> Result<(), Stop> {
    if platform == Platform::Plain {
        return Ok(());
    }
    // The first 2 MiB are memory on every machine, and the other CPUs need them.
    let mut from = 0;
    for (start, end) in in_use(platform) {
        take(guest, from, start)?;
        from = end;
    }
    take(guest, from, layout::LEAST_LOW_MEMORY)?;
    if platform == Platform::Tdx {
        let mailbox = AddressRange::new(layout::MAILBOX_PAGE, PAGE_SIZE).ok_or(Stop::MemoryMap)?;
        guest.memory(mailbox).fill(0);
    }
    let work = Work::new(&parameters.memory);
    guest.together(&work, parameters.vcpus);
    work.result()
}

/// Takes the pages from one address up to another, large ones where that is possible.
fn take(cpu: &mut impl Validate, from: u64, to: u64) -> Result<(), Stop> {
    let large = PageSize::Large.bytes();
    let mut page = from;
    // The host has this 2 MiB in small pages.
    let mut small_until = from;
    while page < to {
        let whole = page.is_multiple_of(large) && to - page >= large && page >= small_until;
        let size = if whole { PageSize::Large } else { PageSize::Small };
        match cpu.validate(page, size) {
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
