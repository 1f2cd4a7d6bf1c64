//! The Python package `sev-snp-measure` computes the same measurement from a plan's files, and makes the same ID
//! block.
//!
//! The package is fetched once into the cache. Where that is not possible, each test says so by its name.

#[path = "foreign/dumps.rs"]
mod dumps;
mod fixture;
#[path = "foreign/package.rs"]
mod package;
#[path = "foreign/report.rs"]
mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use dumps::Dump;
use nacre_launch::{IdBlock, IdKey, Policy, SignedIdBlock, dump};
use package::Python;
use report::{Outcome, Report};

fn main() -> ExitCode {
    let mut report = Report::from_arguments();
    let python = Python::find();
    for vcpus in fixture::VCPUS {
        report.test(&format!("measures_the_dumped_plan_of_{vcpus}_vcpus_as_we_do"), || {
            with_python(&python, |python| measures_as_we_do(python, vcpus))
        });
    }
    report.test("measures_the_real_guest_as_nacre_measure_does", || match dumps::of("snp") {
        Ok(dumps) => with_python(&python, |python| measures_dumps(python, &dumps)),
        Err(reason) => Outcome::Ignored(reason),
    });
    report.test("makes_the_id_block_that_we_make", || with_python(&python, makes_the_same_id_block));
    report.finish()
}

fn with_python(python: &Result<Python, String>, test: impl FnOnce(&Python) -> Result<(), String>) -> Outcome {
    match python {
        Ok(python) => test(python).map_or_else(Outcome::Failed, |()| Outcome::Passed),
        Err(reason) => Outcome::Ignored(reason.clone()),
    }
}

fn measures_as_we_do(python: &Python, vcpus: u32) -> Result<(), String> {
    let plan = fixture::plan(vcpus);
    let folder = tempfile::tempdir().map_err(text)?;
    dump::write(&plan, folder.path()).map_err(text)?;
    let foreign = python.run("recompute.py", &[folder.path()])?;
    same(foreign.trim(), &plan.measurement().to_string())
}

fn measures_dumps(python: &Python, dumps: &[Dump]) -> Result<(), String> {
    same(dumps.iter().map(|dump| dump.vcpus).collect::<Vec<_>>(), fixture::VCPUS.map(u64::from).to_vec())?;
    dumps.iter().try_for_each(|dump| {
        let foreign = python.run("recompute.py", &[&dump.folder])?;
        same(foreign.trim(), dump.measurement.as_str()).map_err(|why| format!("{} vCPUs: {why}", dump.vcpus))
    })
}

fn makes_the_same_id_block(python: &Python) -> Result<(), String> {
    let (id, author) = (IdKey::generate(), IdKey::generate());
    let folder = tempfile::tempdir().map_err(text)?;
    let file = |name: &str| folder.path().join(name);
    fs::write(file("id.pem"), id.to_pem().map_err(text)?).map_err(text)?;
    fs::write(file("author.pem"), author.to_pem().map_err(text)?).map_err(text)?;
    let measurement = fixture::plan(1).measurement();
    fs::write(file("digest"), measurement.0).map_err(text)?;
    let digests = python.run("id_block.py", &[folder.path()])?;

    let read = |name: &str| fs::read(file(name)).map_err(text);
    let foreign = SignedIdBlock::from_bytes(&read("block")?, &read("authentication")?).map_err(text)?;
    let ours = IdBlock::new(measurement, Policy::default()).sign(&id, Some(&author));
    same(foreign.block(), ours.block())?;
    // Signatures differ from one signer to the other; everything else does not.
    for place in [0..0x40, 0x240..0x680, 0x880..0x1000] {
        same(foreign.authentication_bytes().get(place.clone()), ours.authentication_bytes().get(place))?;
    }
    let digests: Vec<&str> = digests.lines().collect();
    same(digests.first().copied(), Some(ours.id_key_digest().to_string().as_str()))?;
    same(digests.get(1).copied(), ours.author_key_digest().map(|digest| digest.to_string()).as_deref())
}

fn same<T: PartialEq + std::fmt::Debug>(foreign: T, ours: T) -> Result<(), String> {
    if foreign == ours { Ok(()) } else { Err(format!("theirs: {foreign:?}\n  ours: {ours:?}")) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Where the Python scripts are.
fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign"))
}
