//! stage0, the guest's first code: a flat binary as it is in a guest's memory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::command;
use crate::error::Error;
use crate::packages;
use crate::programs::{self, TARGET};

/// The largest image, and the size of a page (hypervisor/stage0/abi, layout.rs).
const LIMIT: u64 = 48 << 10;
const PAGE: u64 = 4096;

/// Builds the image and returns its path.
///
/// # Errors
/// A Debian package is missing and can't be installed, the build fails, or the image is not whole pages.
pub fn image() -> Result<PathBuf, Error> {
    packages::need(&["binutils", "gcc", "libc6-dev"])?;
    let mut build = programs::cargo();
    build.args(["build", "--package", "nacre-stage0", "--bin", "nacre-stage0", "--features", "image"]);
    build.args(["--profile", "stage0", "--target", TARGET]);
    // It runs at the end of the first 4 GiB, which addresses of 32 bits with a sign don't reach.
    let flags = ["-Crelocation-model=pic".into(), "-Cforce-unwind-tables=no".into()];
    let flags = [flags.to_vec(), programs::path_flags()].concat();
    command::run("build-stage0", build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))?;

    let folder = programs::target_folder()?.join(TARGET).join("stage0");
    let image = folder.join("stage0.bin");
    let mut copy = Command::new("objcopy");
    copy.args(["--output-target=binary"]).arg(folder.join("nacre-stage0")).arg(&image);
    command::run("flatten-stage0", &mut copy)?;
    let size = fs::metadata(&image).map_err(Error::file("can't look at", &image))?.len();
    if size == 0 || size > LIMIT || !size.is_multiple_of(PAGE) {
        return Err(Error::Task(format!("stage0 has {size} bytes: not whole pages, or more than {LIMIT}")));
    }
    Ok(image)
}

/// Builds the image and prints its path.
///
/// # Errors
/// Those of [`image`].
pub fn print() -> Result<(), Error> {
    println!("{}", image()?.display());
    Ok(())
}
