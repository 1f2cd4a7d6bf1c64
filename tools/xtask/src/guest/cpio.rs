//! A writer of cpio archives in the "newc" form, which the kernel unpacks as its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst in Linux).
//!
//! Times, owners and inode numbers are fixed, and entries are sorted by name: the same content gives the same bytes.

use std::collections::BTreeMap;

use crate::error::Error;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

/// The archive's whole length is a multiple of this, so that it ends with whole pages.
const BLOCK: usize = 512;

/// What is to be in an archive.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Archive {
    /// An empty folder.
    pub fn folder(&mut self, name: &str) -> &mut Self {
        self.add(name, FOLDER, (0, 0), Vec::new())
    }

    /// A file that everybody may run.
    pub fn program(&mut self, name: &str, content: Vec<u8>) -> &mut Self {
        self.add(name, PROGRAM, (0, 0), content)
    }

    /// A character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) -> &mut Self {
        self.add(name, CONSOLE, (major, minor), Vec::new())
    }

    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: Vec<u8>) -> &mut Self {
        self.entries.insert(name.to_owned(), Entry { mode, device, content });
        self
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// A file is larger than the form's 32-bit length.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        // A folder sorts before what is in it.
        for (inode, (name, entry)) in (1u32..).zip(&self.entries) {
            write(&mut bytes, inode, name, entry)?;
        }
        write(&mut bytes, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), content: Vec::new() })?;
        pad(&mut bytes, BLOCK);
        Ok(bytes)
    }
}

fn write(bytes: &mut Vec<u8>, inode: u32, name: &str, entry: &Entry) -> Result<(), Error> {
    let length = |length: usize| {
        u32::try_from(length)
            .map_err(|_| Error::Task(format!("{name} is too large for an initrd: {length} bytes")))
    };
    let links = if entry.mode & FOLDER == FOLDER { 2 } else { 1 };
    let fields = [
        inode,
        entry.mode,
        0, // user
        0, // group
        links,
        0, // modification time
        length(entry.content.len())?,
        0, // device of the archived file system
        0,
        entry.device.0,
        entry.device.1,
        length(name.len() + 1)?,
        0, // checksum, not used in this form
    ];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    pad(bytes, 4);
    bytes.extend_from_slice(&entry.content);
    pad(bytes, 4);
    Ok(())
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(build: impl FnOnce(&mut Archive)) -> Vec<u8> {
        let mut archive = Archive::default();
        build(&mut archive);
        archive.bytes().expect("small")
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_in_any_order() {
        let one = bytes(|archive| {
            archive.folder("dev").device("dev/console", 5, 1).folder("proc").program("init", vec![1, 2, 3]);
        });
        let other = bytes(|archive| {
            archive.program("init", vec![1, 2, 3]).device("dev/console", 5, 1).folder("proc").folder("dev");
        });
        assert_eq!(one, other);
    }

    #[test]
    fn other_content_gives_other_bytes() {
        let one = bytes(|archive| _ = archive.program("init", vec![1]));
        let other = bytes(|archive| _ = archive.program("init", vec![2]));
        assert_ne!(one, other);
    }

    #[test]
    fn an_entry_is_as_the_form_says() {
        let bytes = bytes(|archive| _ = archive.program("init", b"abcde".to_vec()));
        let expected = "070701\
            00000001000081ED0000000000000000000000010000000000000005\
            0000000000000000000000000000000000000005\
            00000000\
            init\0\0abcde\0\0\x00070701";
        assert_eq!(String::from_utf8_lossy(&bytes[..expected.len()]), expected);
        assert_eq!(bytes.len() % BLOCK, 0);
    }
}
