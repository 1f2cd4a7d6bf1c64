//! What tasks keep between runs: outside the checkout, keyed by content.
//!
//! An entry is a folder `<kind>/<key>` that appears whole or not at all. The key is a hash of everything that
//! the entry is made from, so a stale entry can't be found.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Error;

/// The cache's folder: `NACRE_CACHE`, or `nacre` in the user's cache folder.
pub fn root() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let user = || std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    std::env::var_os("NACRE_CACHE").map_or_else(|| user().join("nacre"), PathBuf::from)
}

/// The checkout's folder.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A key under construction: feed it all that an entry depends on.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds bytes under a name.
    pub fn add(&mut self, name: &str, content: impl AsRef<[u8]>) -> &mut Self {
        let content = content.as_ref();
        self.0.update(format!("{name}:{}:", content.len()));
        self.0.update(content);
        self
    }

    /// The finished key: 16 hexadecimal digits.
    pub fn finish(&self) -> String {
        self.0.clone().finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The folder of the entry, made by `make` if it is not there yet. `make` fills the folder it is given, which
/// then takes its name in one step.
///
/// # Errors
/// What `make` returns, or the cache's folder can't be written.
pub fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    let home = root().join(kind);
    let finished = home.join(key);
    if finished.exists() {
        return Ok(finished);
    }
    let partial = home.join(format!(".{key}.{}", std::process::id()));
    fs::create_dir_all(&partial).map_err(Error::file("can't make the folder", &partial))?;
    let made = make(&partial).and_then(|()| match fs::rename(&partial, &finished) {
        // Another run was faster; its entry is as good.
        Err(_) if finished.exists() => Ok(()),
        result => result.map_err(Error::file("can't name the finished entry", &finished)),
    });
    let _ = fs::remove_dir_all(&partial);
    made.map(|()| finished)
}
