//! Guests that nobody attacks, and guests of which a host starts CPUs that it must not.

use nacre_stage0_abi::layout;
use nacre_stage0_abi::stop::Stop;

use super::{Entry, Guest, Running, must_die, must_stop};
use crate::cpu::{Ended, lock};
use crate::error::{Error, must};
use crate::image::replace_all;
use crate::launch::HIGH;
use crate::model::Technology;

pub const CASES: &[Entry] = &[
    ("plain-reaches-the-kernel", |image| reaches(Guest::new(Technology::Plain, 2, image)?, false)),
    ("snp-reaches-the-kernel", |image| reaches(Guest::new(Technology::Snp, 2, image)?, false)),
    ("snp-with-large-pages", |image| reaches(Guest::new(Technology::Snp, 1, image)?, true)),
    ("shared-copy-changed-after-it-was-read", shared_copy),
    ("snp-second-cpu-before-the-first", second_cpu_before),
    ("snp-second-cpu-after-the-first", second_cpu_after),
    ("snp-first-cpu-again", first_cpu_again),
    ("plain-second-cpu", plain_second_cpu),
    ("snp-forgotten-encryption-bit-shows", forgotten_bit),
    ("snp-forgotten-page-shows", forgotten_page),
    ("snp-page-taken-twice-shows", taken_twice),
    ("snp-pages-are-read-when-they-are-taken", |image| read_when_taken(image).map(|()| "read".into())),
    ("snp-page-that-is-not-read-shows", not_read_shows),
];

/// The first CPU alone reaches the kernel.
fn reaches(guest: Guest, large_pages: bool) -> Result<String, Error> {
    let mut running = guest.start(|model| {
        model.large_pages = large_pages;
        Ok(())
    })?;
    first_reaches(&mut running)?;
    let taken: u64 = lock(&running.model).taken.values().sum();
    Ok(format!("{taken} pages taken into use"))
}

/// The host changes every page of the window behind stage0's back (`Model::open_next`); what was copied is what runs.
fn shared_copy(image: &[u8]) -> Result<String, Error> {
    for technology in [Technology::Snp, Technology::Tdx] {
        let mut running = Guest::new(technology, 1, image)?.start(|model| {
            model.window_changes = true;
            Ok(())
        })?;
        first_reaches(&mut running)?;
        let first = lock(&running.model).memory.window.read(0, 4096);
        must(first.is_none(), || "the window's first page was not taken away".into())?;
    }
    Ok("the private copy is what was measured".into())
}

fn first_reaches(running: &mut Running) -> Result<super::Cpu, Error> {
    let mut first = running.take(0)?;
    let ended = first.run()?;
    running.must_be_in_the_kernel(&ended)?;
    Ok(first)
}

fn must_be_second(ended: &Ended) -> Result<String, Error> {
    let right = matches!(ended, Ended::Stopped(Stop::SecondEntry));
    must(right, || format!("must be stopped as a second entry, but: {ended:?}"))?;
    Ok("stopped as a second entry".into())
}

fn second_cpu_before(image: &[u8]) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Snp, 2, image)?.start(|_| Ok(()))?;
    let note = must_be_second(&running.take(1)?.run()?)?;
    // And it did nothing to the first.
    first_reaches(&mut running)?;
    Ok(note)
}

fn second_cpu_after(image: &[u8]) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Snp, 2, image)?.start(|_| Ok(()))?;
    let _first = first_reaches(&mut running)?;
    running.machine.show_early_image(&lock(&running.model).memory)?;
    must_be_second(&running.take(1)?.run()?)
}

fn first_cpu_again(image: &[u8]) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Snp, 1, image)?.start(|_| Ok(()))?;
    let mut first = first_reaches(&mut running)?;
    running.machine.show_early_image(&lock(&running.model).memory)?;
    first.set(&running.launch.cpu(0))?;
    must_be_second(&first.run()?)
}

fn plain_second_cpu(image: &[u8]) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Plain, 2, image)?.start(|_| Ok(()))?;
    must_be_second(&running.take(1)?.run()?)
}

/// The harness itself: it must find mistakes that stage0 does not make.
fn changed(image: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>, Error> {
    let mut image = image.to_vec();
    let count = replace_all(&mut image, from, to);
    must(count == 1, || format!("{from:02x?} is there {count} times"))?;
    Ok(image)
}

fn forgotten_bit(image: &[u8]) -> Result<String, Error> {
    // `bts ebp, ecx` becomes nothing.
    let image = changed(image, &[0x0f, 0xab, 0xcd], &[0x90, 0x90, 0x90])?;
    let mut running = Guest::new(Technology::Snp, 1, &image)?.start(|_| Ok(()))?;
    must_die(&mut running, "without the encryption bit")
}

/// The loop over the entry's own memory: `add esp, 0x1000; cmp esp, 0x20000`, with another step.
fn with_step(image: &[u8], step: u16) -> Result<Vec<u8>, Error> {
    const END: [u8; 6] = [0x81, 0xfc, 0, 0, 2, 0];
    let add = |step: u16| [&[0x81, 0xc4][..], &step.to_le_bytes(), &[0, 0], &END].concat();
    changed(image, &add(0x1000), &add(step))
}

fn forgotten_page(image: &[u8]) -> Result<String, Error> {
    let image = with_step(image, 0x5000)?;
    let mut running = Guest::new(Technology::Snp, 1, &image)?.start(|_| Ok(()))?;
    must_die(&mut running, "touches memory that is not in use")
}

/// Cached lines from before (CVE-2025-38560): in the entry, in low memory, and in the rest.
fn read_when_taken(image: &[u8]) -> Result<(), Error> {
    let mut running = Guest::new(Technology::Snp, 1, image)?.start(|model| {
        model.must_touch = vec![layout::PAGE_TABLES, 0x3000, HIGH.0 + HIGH.1 - 4096];
        model.large_pages = false;
        Ok(())
    })?;
    first_reaches(&mut running).map(drop)
}

fn not_read_shows(image: &[u8]) -> Result<String, Error> {
    // `mov eax, [esp]; mov eax, [esp + 0xffc]` in the entry becomes nothing.
    let reads = [0x8b, 0x04, 0x24, 0x8b, 0x84, 0x24, 0xfc, 0x0f, 0, 0];
    let image = changed(image, &reads, &[0x90; 10])?;
    match read_when_taken(&image) {
        Err(error) if error.to_string().contains("did not read it") => Ok(error.to_string()),
        other => Err(Error::Wrong(format!("must show, but: {other:?}"))),
    }
}

fn taken_twice(image: &[u8]) -> Result<String, Error> {
    let image = with_step(image, 0)?;
    let mut running = Guest::new(Technology::Snp, 1, &image)?.start(|_| Ok(()))?;
    must_stop(&mut running, Stop::ScratchNotValidated)
}
