//! The kernel's headers for programs, of a release that is new enough for SEV-SNP and Intel TDX: a unit test compares our structures with
//! them.

use std::path::PathBuf;

use crate::cache;
use crate::error::Error;
use crate::packages;

const PACKAGE: &str = "linux-libc-dev";
/// The first Linux that has all structures.
const LEAST: &str = "6.16";
/// A release of Debian that has it.
const RELEASE: &str = "forky";

/// The folder with the headers: the system's if they are new enough, else those of a newer Debian, in the cache.
///
/// # Errors
/// There are none, or they can't be fetched.
pub fn folder() -> Result<PathBuf, Error> {
    if packages::version(PACKAGE).is_some_and(|version| packages::reaches(&version, LEAST)) {
        return Ok("/usr/include".into());
    }
    let entry =
        cache::entry("kernel-headers", LEAST, |folder| packages::unpack_from(RELEASE, PACKAGE, folder))?;
    Ok(entry.join("root/usr/include"))
}
