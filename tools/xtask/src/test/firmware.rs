//! Debian's firmware for confidential machines, of a newer release than this machine's: unit tests compute the measurements of the
//! very files for which foreign tools' results are known.

use std::path::PathBuf;

use crate::cache;
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
        PACKAGES.iter().try_for_each(|name| packages::unpack_from(RELEASE, name, folder))
    })?;
    Ok(entry.join("root/usr/share/ovmf"))
}
