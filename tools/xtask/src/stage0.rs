//! stage0, the guest's first code: a flat binary as it is in a guest's memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
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
    build(&cache::checkout(), &programs::target_folder()?)
}

/// Builds the image of a checkout.
fn build(checkout: &Path, target: &Path) -> Result<PathBuf, Error> {
    let mut build = programs::cargo();
    build.current_dir(checkout).env("CARGO_TARGET_DIR", target);
    build.args(["build", "--package", "nacre-stage0", "--bin", "nacre-stage0", "--features", "image"]);
    build.args(["--profile", "stage0", "--target", TARGET]);
    // It runs at the end of the first 4 GiB, which addresses of 32 bits with a sign don't reach.
    let flags = ["-Crelocation-model=pic".into(), "-Cforce-unwind-tables=no".into()];
    let flags = [flags.to_vec(), programs::path_flags_of(checkout)].concat();
    command::run("build-stage0", build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))?;

    let folder = target.join(TARGET).join("stage0");
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

/// Builds the image twice, from nothing, in two other folders, and compares the bytes with each other and with the
/// checkout's own image: whoever builds it must get the same measurement.
///
/// # Errors
/// A build fails, or the images differ.
pub fn reproduce() -> Result<(), Error> {
    let own = read(&image()?)?;
    // Of different lengths, so that a path in the image shows in its size, too.
    let folder = cache::root().join("reproduce");
    let copies = [folder.join("a"), folder.join("another/place-to-build")];
    let result = copies.iter().try_for_each(|copy| {
        copy_sources(copy)?;
        let image = build(copy, &copy.join("target"))?;
        if read(&image)? == own {
            return Ok(());
        }
        Err(Error::Task(format!(
            "the image built in {} differs; compare it with the checkout's",
            copy.display()
        )))
    });
    if result.is_ok() {
        fs::remove_dir_all(&folder).map_err(Error::file("can't remove", &folder))?;
    }
    result
}

/// Copies what git has of the checkout, as it is now, to a folder that is empty then.
fn copy_sources(to: &Path) -> Result<(), Error> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(Error::file("can't remove", to))?;
    }
    let checkout = cache::checkout();
    let list = command::output(Command::new("git").arg("-C").arg(&checkout).args(["ls-files", "-z"]))?;
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (checkout.join(name), to.join(name));
        let parent = to.parent().unwrap_or(&to);
        fs::create_dir_all(parent).map_err(Error::file("can't make the folder", parent))?;
        fs::copy(&from, &to).map_err(Error::file("can't copy", &from))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::file("can't read", path))
}

/// Builds the image and prints its path.
///
/// # Errors
/// Those of [`image`].
pub fn print() -> Result<(), Error> {
    println!("{}", image()?.display());
    Ok(())
}
