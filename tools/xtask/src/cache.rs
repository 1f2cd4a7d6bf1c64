//! What tasks keep between runs: outside the checkout, keyed by content.
//!
//! An entry is a folder `<kind>/<key>` that appears whole or not at all. The key is a hash of everything that
//! the entry is made from, so a stale entry can't be found.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

/// Removes the entries of a kind whose key begins with `prefix`, but for the newest `kept`.
///
/// # Errors
/// The cache can't be read or written.
pub fn keep_newest(kind: &str, prefix: &str, kept: usize) -> Result<(), Error> {
    prune(&root().join(kind), prefix, kept)
}

fn prune(home: &Path, prefix: &str, kept: usize) -> Result<(), Error> {
    let entries = fs::read_dir(home).map_err(Error::file("can't read", home))?;
    let ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    // What has a leading dot is still being made.
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let age = |path: &PathBuf| {
        fs::metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| ours(path) && !hidden(path)).collect();
    found.sort_by_key(|path| Reverse(age(path)));
    for old in found.iter().skip(kept) {
        fs::remove_dir_all(old).map_err(Error::file("can't remove", old))?;
    }
    Ok(())
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

/// As [`entry`], but one run at a time makes an entry of the kind. `make` also gets a folder to build in, which holds what a
/// build that was stopped has left.
///
/// # Errors
/// Those of [`entry`].
pub fn entry_in_turn(
    kind: &str,
    key: &str,
    make: impl FnOnce(&Path, &Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    entry(kind, key, |folder| {
        let home = root().join(kind);
        let work = home.join(".work");
        fs::create_dir_all(&work).map_err(Error::file("can't make the folder", &work))?;
        let path = home.join(".work.lock");
        let lock = File::create(&path).map_err(Error::file("can't write", &path))?;
        if lock.try_lock().is_err() {
            eprintln!("another run builds such a {kind}; waiting for it");
            lock.lock().map_err(Error::file("can't lock", &path))?;
        }
        // It may have made this one.
        if home.join(key).exists() { Ok(()) } else { make(folder, &work) }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::prune;

    #[test]
    fn forgets_the_oldest_of_a_prefix_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        for (age, name) in ["a-new", "a-middle", "a-old", "b-old", ".a-partial"].into_iter().enumerate() {
            let path = home.path().join(name);
            fs::create_dir(&path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(60 * age as u64);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        prune(home.path(), "a-", 2).unwrap();
        let mut left: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".a-partial", "a-middle", "a-new", "b-old"]);
    }
}
