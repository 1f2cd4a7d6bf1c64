//! One layer of an image: a tar whose bytes depend on nothing but its entries.

use std::io::Write;

use tar::{Builder, EntryType, Header};

use crate::error::Error;

/// The time that entries carry which are not from a package: 2024-01-01.
pub const TIME: u64 = 1_704_067_200;

/// What an entry is.
pub enum Kind {
    /// A file and its content.
    File(Vec<u8>),
    /// A folder.
    Directory,
    /// A symbolic link and where it points.
    Symlink(String),
    /// Another name of an earlier file of this layer.
    Hardlink(String),
    /// A character device with its major and minor numbers.
    CharDevice(u32, u32),
    /// A block device with its major and minor numbers.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A name in the file system with all that it carries.
pub struct Entry {
    /// Without a leading slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-ID and the like included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Of this kind, owned by root, with the usual mode for it.
    pub fn new(path: impl Into<String>, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Directory => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        Self { path: path.into(), kind, mode, uid: 0, gid: 0, mtime: TIME, xattrs: Vec::new() }
    }

    /// With this mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Owned by this user and group.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// With one more extended attribute.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }
}

/// A layer under construction.
#[derive(Default)]
pub struct Layer {
    entries: Vec<Entry>,
}

impl Layer {
    /// Adds an entry.
    pub fn add(&mut self, entry: Entry) -> &mut Self {
        self.entries.push(entry);
        self
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) -> &mut Self {
        self.add(Entry::new(path, Kind::Directory))
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.add(Entry::new(path, Kind::File(content.into())))
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.add(Entry::new(path, Kind::File(content.into())).mode(0o755))
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(Entry::new(path, Kind::Symlink(target.to_owned())))
    }

    /// Removes what a lower layer has under this path (the image format's whiteout).
    pub fn whiteout(&mut self, path: &str) -> &mut Self {
        let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
        let separator = if folder.is_empty() { "" } else { "/" };
        self.file(&format!("{folder}{separator}.wh.{name}"), Vec::new())
    }

    /// Hides everything that lower layers have in this folder.
    pub fn opaque(&mut self, path: &str) -> &mut Self {
        self.file(&format!("{path}/.wh..wh..opq"), Vec::new())
    }

    /// Whether the path is there already.
    pub fn has(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| entry.path == path)
    }

    /// The content of a file, which leaves the layer.
    pub fn take_file(&mut self, path: &str) -> Option<Vec<u8>> {
        let position = self.entries.iter().position(|entry| entry.path == path)?;
        match self.entries.remove(position).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The tar.
    ///
    /// # Errors
    /// An entry doesn't fit into the format.
    pub fn to_tar(&self) -> Result<Vec<u8>, Error> {
        let mut tar = Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut tar, entry)
                .map_err(|error| Error::Task(format!("{} does not fit into a tar: {error}", entry.path)))?;
        }
        tar.into_inner().map_err(|error| Error::Task(format!("a layer's tar can't be finished: {error}")))
    }
}

fn append<W: Write>(tar: &mut Builder<W>, entry: &Entry) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(entry.mtime);
    header.set_size(0);
    // containerd reads names over 100 bytes from either extension; attributes only from PAX records.
    let attributes: Vec<(String, &[u8])> =
        entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
    tar.append_pax_extensions(attributes.iter().map(|(name, value)| (name.as_str(), *value)))?;
    let device = |header: &mut Header, kind, major, minor| {
        header.set_entry_type(kind);
        header.set_device_major(major)?;
        header.set_device_minor(minor)
    };
    match &entry.kind {
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            return tar.append_data(&mut header, &entry.path, content.as_slice());
        }
        Kind::Directory => header.set_entry_type(EntryType::Directory),
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            return tar.append_link(&mut header, &entry.path, target);
        }
        Kind::Hardlink(target) => {
            header.set_entry_type(EntryType::Link);
            return tar.append_link(&mut header, &entry.path, target);
        }
        Kind::CharDevice(major, minor) => device(&mut header, EntryType::Char, *major, *minor)?,
        Kind::BlockDevice(major, minor) => device(&mut header, EntryType::Block, *major, *minor)?,
        Kind::Fifo => header.set_entry_type(EntryType::Fifo),
    }
    tar.append_data(&mut header, &entry.path, std::io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_the_same_bytes_each_time() {
        let make = || {
            let mut layer = Layer::default();
            layer.directory("etc").file("etc/hosts", "127.0.0.1 localhost\n").whiteout("etc/motd");
            layer.to_tar().unwrap()
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn long_names_and_attributes_survive() {
        let name = "n".repeat(255);
        let mut layer = Layer::default();
        layer.add(Entry::new(&name, Kind::File(b"x".to_vec())).xattr("user.a", b"\0binary\xff"));
        let tar = layer.to_tar().unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path_bytes().as_ref(), name.as_bytes());
        let extensions = entry.pax_extensions().unwrap().unwrap();
        let found = extensions.map(Result::unwrap).find(|one| one.key_bytes() == b"SCHILY.xattr.user.a");
        assert_eq!(found.unwrap().value_bytes(), b"\0binary\xff");
    }

    #[test]
    fn a_whiteout_stands_beside_its_victim() {
        let mut layer = Layer::default();
        layer.whiteout("a/b").whiteout("top");
        assert!(layer.has("a/.wh.b"));
        assert!(layer.has(".wh.top"));
    }
}
