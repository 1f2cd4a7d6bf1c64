//! QEMU for a node that it emulates: Debian's source with four faults mended that nested virtual machines bring out (`qemu/*.patch`).
//!
//! With Debian's own build guests triple-faulted or hung, and nodes died after minutes. No test is tried twice for that any more: what
//! fails in a node with this QEMU is taken for our own mistake.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::cache::{self, Key};
use crate::command;
use crate::error::Error;
use crate::packages;
use crate::progress::Note;

/// The release whose QEMU is built: the one that the patches are for.
const SUITE: &str = "trixie";

/// What building takes.
const TOOLS: [&str; 8] = [
    "dpkg-dev",
    "gcc",
    "libglib2.0-dev",
    "libslirp-dev",
    "ninja-build",
    "pkg-config",
    "python3-venv",
    "zlib1g-dev",
];

/// The oldest meson that QEMU 10.0 builds with.
const LEAST_MESON: &str = "1.5";

const PROGRAM: &str = "qemu-system-x86_64";
/// What is mended, as one patch. Each says what was wrong.
const PATCH: &str = concat!(
    include_str!("qemu/interrupt-once.patch"),
    include_str!("qemu/flags-of-the-first-processor.patch"),
    include_str!("qemu/interrupts-of-other-threads.patch"),
    include_str!("qemu/code-of-other-processors.patch"),
    include_str!("qemu/memory-filled-where-code-was.patch"),
);
const DEVICES: &str = include_str!("qemu/devices.mak");

/// QEMU with nothing that the node does not need.
const OPTIONS: [&str; 13] = [
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    "--with-devices-x86_64=nacre",
    "--enable-system",
    "--enable-tcg",
    "--enable-slirp",
    "--disable-fdt",
    "--disable-guest-agent",
    "--disable-tools",
    "--disable-docs",
    "--disable-install-blobs",
    "--disable-werror",
];

/// The program, built if it is not in the cache. Its firmware is that of Debian's package.
///
/// # Errors
/// A package can't be had, or the build fails.
pub fn program(note: &Note) -> Result<PathBuf, Error> {
    let mut key = Key::default();
    key.add("suite", SUITE).add("patch", PATCH).add("devices", DEVICES).add("options", OPTIONS.join(" "));
    let entry = cache::entry_in_turn("qemu", &key.finish(), |entry, work| build(entry, work, note))?;
    Ok(entry.join(PROGRAM))
}

fn build(entry: &Path, work: &Path, note: &Note) -> Result<(), Error> {
    note.set("packages for QEMU".into());
    packages::need(&TOOLS)?;
    packages::need_version("meson", LEAST_MESON)?;
    note.set("QEMU's source".into());
    let work = &work.join("qemu");
    if work.exists() {
        fs::remove_dir_all(work).map_err(Error::file("can't remove", work))?;
    }
    fs::create_dir(work).map_err(Error::file("can't make the folder", work))?;
    let source = packages::fetch_source("qemu", SUITE, work)?;
    let patch = work.join("nested.patch");
    for (path, content) in
        [(&patch, PATCH), (&source.join("configs/devices/x86_64-softmmu/nacre.mak"), DEVICES)]
    {
        fs::write(path, content).map_err(Error::file("can't write", path))?;
    }
    let mut apply = Command::new("patch");
    apply.args(["--strip=1", "--batch", "--input"]).arg(&patch).current_dir(&source);
    command::run("qemu-patch", &mut apply)?;
    let tree = work.join("build");
    fs::create_dir(&tree).map_err(Error::file("can't make the folder", &tree))?;
    note.set("configuring QEMU".into());
    let mut configure = Command::new(source.join("configure"));
    // Debian's, which has what QEMU's scripts import; another that the user prefers may not.
    configure.args(OPTIONS).arg("--python=/usr/bin/python3").current_dir(&tree);
    command::run("qemu-configure", &mut configure)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut ninja = Command::new("nice");
    ninja.args(["ninja", "-j", &cores.to_string(), PROGRAM]).current_dir(&tree);
    command::run_watched("qemu-compile", &mut ninja, |line| {
        if let Some((counts, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            note.set(format!("compiling QEMU, {}", counts.replace('/', " of ")));
        }
    })?;
    let built = tree.join(PROGRAM);
    fs::copy(&built, entry.join(PROGRAM)).map_err(Error::file("can't copy", &built))?;
    fs::remove_dir_all(work).map_err(Error::file("can't remove", work))
}
