//! The guest image: an initrd with the agent as its only program.
//!
//! It is not compressed. The kernel copies a few megabytes faster than it unpacks them, and the virtual machine's
//! monitor reads them from the page cache.

use std::fs;
use std::path::PathBuf;

use super::cpio::Archive;
use crate::cache;
use crate::error::Error;
use crate::programs;

/// Where the agent mounts and writes.
const FOLDERS: [&str; 6] = ["dev", "etc", "proc", "run", "sys", "tmp"];

/// Builds the agent and packs the image. The same agent gives the same bytes.
///
/// # Errors
/// The agent's build fails, or the cache can't be written.
pub fn build() -> Result<PathBuf, Error> {
    let agent = programs::agent()?;
    let agent = fs::read(&agent).map_err(Error::file("can't read", agent))?;
    let image = pack(agent)?;
    let key = cache::Key::default().add("image", &image).finish();
    let entry = cache::entry("guest-image", &key, |folder| {
        let path = folder.join("initrd.img");
        fs::write(&path, &image).map_err(Error::file("can't write", path))
    })?;
    Ok(entry.join("initrd.img"))
}

fn pack(agent: Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder);
    }
    // The kernel opens it for init's messages before init mounts anything.
    archive.device("dev/console", 5, 1);
    archive.program("init", agent);
    archive.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_agent_gives_the_same_image() {
        assert_eq!(pack(vec![7; 5000]).expect("small"), pack(vec![7; 5000]).expect("small"));
    }
}
