//! What a hostile host does to a guest of any technology.

use nacre_stage0_abi::layout;
use nacre_stage0_abi::stop::Stop;

use super::{Entry, Guest, must_die, must_stop};
use crate::error::Error;
use crate::launch::Launch;
use crate::model::{Answer, Lie, Technology};

const MIB: u64 = 1 << 20;
/// In the parameters page: how many ranges there are, and the first (`nacre_stage0_abi::ParametersPage`).
const RANGE_COUNT: usize = 28;
const RANGES: usize = 32;
const ENCRYPTION_BIT: usize = 16;
const SHARED_BIT: usize = 288;
/// In the hashes page: the first image (`nacre_stage0_abi::HashesPage`), of 72 bytes each.
const IMAGES: usize = 24;

pub const CASES: &[Entry] = &[
    ("map-overlaps", |image| map(image, &[(0, 32 * MIB), (31 * MIB, 4 * MIB)])),
    ("map-wraps", |image| map(image, &[(0, 32 * MIB), (u64::MAX - 0xfff, 0x2000)])),
    ("map-lists-a-range-twice", |image| map(image, &[(0, 32 * MIB), (1 << 32, MIB), (1 << 32, MIB)])),
    ("map-goes-down", |image| map(image, &[(0, 32 * MIB), (8 << 30, MIB), (4 << 30, MIB)])),
    ("map-hides-stage0s-image", |image| map(image, &[(0, 32 * MIB), (0xffff_0000, 0x1_0000)])),
    ("map-hides-stage0s-data", |image| map(image, &[(0x10_0000, 31 * MIB)])),
    ("map-hides-the-window", |image| map(image, &[(0, 0xc000_0000 + MIB)])),
    ("map-has-part-of-a-page", |image| map(image, &[(0, 32 * MIB), (1 << 32, 0x1800)])),
    ("map-too-long", |image| {
        each(image, |launch| put(&mut launch.parameters, RANGE_COUNT, &17u32.to_le_bytes()), Stop::MemoryMap)
    }),
    ("kernel-changed", |image| each(image, |launch| launch.window[0x1fff] ^= 1, Stop::KernelHash)),
    ("kernels-second-segment-changed", |image| {
        each(image, |launch| launch.window[0x2000] ^= 0x80, Stop::KernelHash)
    }),
    ("initrd-changed", |image| each(image, |launch| launch.window[0x5abb] ^= 1, Stop::InitrdHash)),
    ("command-line-changed", |image| each(image, |launch| launch.window[0x6003] ^= 1, Stop::CommandLineHash)),
    ("hash-changed", |image| each(image, |launch| launch.hashes[IMAGES + 40] ^= 1, Stop::KernelHash)),
    ("image-loaded-over-stage0s-data", |image| {
        each(image, |launch| put(&mut launch.hashes, IMAGES + 24, &0x1_0000u64.to_le_bytes()), Stop::Hashes)
    }),
    ("window-moved-over-private-memory", |image| {
        each(image, |launch| put(&mut launch.hashes, IMAGES + 8, &(24 * MIB).to_le_bytes()), Stop::Hashes)
    }),
    ("entry-not-in-the-kernel", |image| {
        each(image, |launch| put(&mut launch.hashes, 16, &(20 * MIB).to_le_bytes()), Stop::Hashes)
    }),
    ("tdx-no-shared-bit", |image| {
        let change = |launch: &mut Launch| put(&mut launch.parameters, SHARED_BIT, &[0; 4]);
        one(image, Technology::Tdx, change, None, Stop::EncryptionBit)
    }),
    ("snp-encryption-bit-differs-from-cpuid", |image| {
        one(image, Technology::Snp, |launch| launch.cpuid[16 + 28] ^= 1, None, Stop::EncryptionBit)
    }),
    ("snp-no-encryption-bit", |image| {
        let change = |launch: &mut Launch| put(&mut launch.parameters, ENCRYPTION_BIT, &12u32.to_le_bytes());
        one(image, Technology::Snp, change, None, Stop::NoEncryptionBit)
    }),
    ("snp-processor-says-it-is-none", snp_status),
    ("pvalidate-says-valid-before-in-the-entry", |image| {
        snp_lie(
            image,
            |page, _| (page == layout::PAGE_TABLES).then_some(Answer::Already),
            Stop::ScratchNotValidated,
        )
    }),
    ("pvalidate-fails-in-the-entry", |image| {
        snp_lie(image, |page, _| (page == 0x1_f000).then_some(Answer::Refused), Stop::ScratchNotValidated)
    }),
    ("page-valid-before-in-low-memory", |image| {
        lie(image, |page, _| (page == 0x3000).then_some(Answer::Already), Stop::ValidatedBefore)
    }),
    ("page-valid-before", |image| {
        lie(image, |page, large| small(page, large, Answer::Already), Stop::ValidatedBefore)
    }),
    ("large-page-valid-before", |image| {
        lie(image, |page, large| (page == 8 * MIB && large).then_some(Answer::Already), Stop::ValidatedBefore)
    }),
    ("no-size-is-right", |image| {
        lie(image, |page, large| small(page, large, Answer::OtherSize), Stop::NotValidated)
    }),
    ("page-refused", |image| {
        lie(image, |page, large| small(page, large, Answer::Refused), Stop::NotValidated)
    }),
    ("large-page-refused", |image| {
        lie(image, |page, _| (page == 1 << 32).then_some(Answer::Refused), Stop::NotValidated)
    }),
    ("page-only-said-to-be-in-use", only_said),
    ("large-page-only-partly-in-use", partly),
];

/// Where the kernel's first segment is loaded.
const KERNEL: u64 = 16 * MIB;

/// The host has one piece of memory in small pages, and answers for one of them.
fn small(page: u64, large: bool, answer: Answer) -> Option<Answer> {
    match (page, large) {
        (page, true) if page == 8 * MIB => Some(Answer::OtherSize),
        (page, false) if page == 9 * MIB => Some(answer),
        _ => None,
    }
}

/// Writes bytes at a place that a page has.
fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
}

/// A guest of each technology with another memory map.
fn map(image: &[u8], ranges: &[(u64, u64)]) -> Result<String, Error> {
    let change = |launch: &mut Launch| {
        put(&mut launch.parameters, RANGES, &[0; 256]);
        let count = u32::try_from(ranges.len()).unwrap_or(0);
        put(&mut launch.parameters, RANGE_COUNT, &count.to_le_bytes());
        for (number, (start, len)) in ranges.iter().enumerate() {
            put(&mut launch.parameters, RANGES + 16 * number, &start.to_le_bytes());
            put(&mut launch.parameters, RANGES + 16 * number + 8, &len.to_le_bytes());
        }
    };
    each(image, change, Stop::MemoryMap)
}

/// A guest of each confidential technology, with a change to what it is launched with.
fn each(image: &[u8], change: impl Fn(&mut Launch), stop: Stop) -> Result<String, Error> {
    one(image, Technology::Snp, &change, None, stop)?;
    one(image, Technology::Tdx, &change, None, stop)
}

/// A guest of each confidential technology whose host lies about pages.
fn lie(image: &[u8], lie: Lie, stop: Stop) -> Result<String, Error> {
    one(image, Technology::Snp, |_| (), Some(lie), stop)?;
    one(image, Technology::Tdx, |_| (), Some(lie), stop)
}

fn snp_lie(image: &[u8], lie: Lie, stop: Stop) -> Result<String, Error> {
    one(image, Technology::Snp, |_| (), Some(lie), stop)
}

fn one(
    image: &[u8],
    technology: Technology,
    change: impl FnOnce(&mut Launch),
    lie: Option<Lie>,
    stop: Stop,
) -> Result<String, Error> {
    let mut guest = Guest::new(technology, 1, image)?;
    change(&mut guest.launch);
    let mut running = guest.start(|model| {
        model.lie = lie;
        Ok(())
    })?;
    must_stop(&mut running, stop).map_err(|error| Error::Wrong(format!("{technology:?}: {error}")))
}

fn snp_status(image: &[u8]) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Snp, 1, image)?.start(|model| {
        // SEV and SEV-ES, without the memory's integrity.
        model.sev_status = 0b011;
        Ok(())
    })?;
    must_stop(&mut running, Stop::OtherPlatform)
}

/// The page that holds the kernel's first bytes is never the guest's, whatever the answer.
fn only_said(image: &[u8]) -> Result<String, Error> {
    for technology in [Technology::Snp, Technology::Tdx] {
        let mut running = Guest::new(technology, 1, image)?.start(|model| {
            model.lie = Some(|page, large| match (page, large) {
                (KERNEL, true) => Some(Answer::OtherSize),
                (KERNEL, false) => Some(Answer::Done),
                _ => None,
            });
            Ok(())
        })?;
        must_die(&mut running, "touches memory that is not in use")?;
    }
    Ok("touching it ends the guest".into())
}

/// A large page of which the host gave less than it says.
fn partly(image: &[u8]) -> Result<String, Error> {
    for technology in [Technology::Snp, Technology::Tdx] {
        let mut running = Guest::new(technology, 1, image)?.start(|model| {
            model.lie = Some(|page, large| (page == 20 * MIB && large).then_some(Answer::Done));
            Ok(())
        })?;
        must_die(&mut running, "touches memory that is not in use")?;
    }
    Ok("touching it ends the guest".into())
}
