//! Debian's firmware for confidential machines, of a newer release than this machine's: unit tests compute the measurements of the
//! very files for which foreign tools' results are known.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cache;
use crate::command;
use crate::error::Error;
use crate::packages;

const PACKAGES: [&str; 2] = ["ovmf-amdsev", "ovmf-inteltdx"];
/// The release of Debian that has them.
const RELEASE: &str = "forky";
/// Their version when the results were computed. The tests look at the files themselves and say what they found.
const VERSION: &str = "2026.08";

/// The folder with the images, in the cache.
///
/// # Errors
/// They can't be fetched.
pub fn folder() -> Result<PathBuf, Error> {
    let entry = cache::entry("firmware", VERSION, |folder| {
        for name in PACKAGES {
            let package = packages::fetch_from(RELEASE, name, folder)?;
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&package).arg(folder.join("root"));
            command::run("firmware", &mut unpack)?;
            fs::remove_file(&package).map_err(Error::file("can't remove", &package))?;
        }
        Ok(())
    })?;
    Ok(entry.join("root/usr/share/ovmf"))
}
