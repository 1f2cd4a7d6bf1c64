//! Reading a file or a folder with everything in it, within limits.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::VolumeError;

/// What may be read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a single file.
    pub file: u64,
    /// Bytes of all files of a folder.
    pub folder: u64,
    /// Entries of a folder.
    pub entries: u32,
}

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below the root; empty for the root itself.
    pub path: PathBuf,
    /// Kind and permissions, as in `stat`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// A file and its bytes.
    File(Vec<u8>),
}

/// Reads `root`; a link at the root is followed, as a bind mount does. Folders come before what is in them. `enter` is
/// called for each folder before it is read. What goes while its folder is read counts as not there.
///
/// # Errors
/// Something that can't be copied, by name.
pub fn read(
    root: &Path,
    limits: Limits,
    enter: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> Result<Vec<Entry>, VolumeError> {
    let metadata = fs::metadata(root).map_err(failed(root))?;
    if !metadata.is_dir() {
        return Ok(vec![entry(root, PathBuf::new(), &metadata, limits.file, Over::File(limits.file))?]);
    }
    let mut left = limits.folder;
    let mut entries = vec![folder(PathBuf::new(), &metadata)];
    let mut open = vec![PathBuf::new()];
    while let Some(parent) = open.pop() {
        let path = root.join(&parent);
        let is_root = parent == Path::new("");
        let children = match enter(&path).and_then(|()| fs::read_dir(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_root => continue,
            children => children.map_err(failed(&path))?,
        };
        for child in children {
            let name = child.map_err(failed(&path))?.file_name();
            let (below, path) = (parent.join(&name), path.join(&name));
            if entries.len() >= usize::try_from(limits.entries).unwrap_or(usize::MAX) {
                let (unit, key) = ("entries", "binds.max_folder_entries");
                return Err(VolumeError::FolderTooLarge {
                    path: root.into(),
                    most: limits.entries.into(),
                    unit,
                    key,
                });
            }
            let metadata = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(failed(&path))?,
            };
            if metadata.is_dir() {
                open.push(below.clone());
                entries.push(folder(below, &metadata));
                continue;
            }
            let entry = match entry(&path, below, &metadata, left, Over::Folder(root, limits.folder)) {
                Err(VolumeError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                entry => entry?,
            };
            if let Kind::File(bytes) = &entry.kind {
                left = left.saturating_sub(bytes.len() as u64);
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Whose limit it is.
enum Over<'a> {
    File(u64),
    Folder(&'a Path, u64),
}

fn entry(
    path: &Path,
    below: PathBuf,
    metadata: &Metadata,
    most: u64,
    over: Over<'_>,
) -> Result<Entry, VolumeError> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_symlink() {
        Kind::Link(fs::read_link(path).map_err(failed(path))?.into_os_string().into_vec())
    } else if file_type.is_file() {
        let mut bytes = Vec::new();
        // One more than allowed, to notice a file that grows.
        File::open(path)
            .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
            .map_err(failed(path))?;
        if bytes.len() as u64 > most {
            return Err(match over {
                Over::File(most) => {
                    VolumeError::FileTooLarge { path: path.into(), bytes: metadata.len(), most }
                }
                Over::Folder(root, most) => {
                    let (unit, key) = ("bytes", "binds.max_folder_kib");
                    VolumeError::FolderTooLarge { path: root.into(), most, unit, key }
                }
            });
        }
        Kind::File(bytes)
    } else {
        let kind = match () {
            () if file_type.is_socket() => "socket",
            () if file_type.is_fifo() => "fifo",
            () => "device",
        };
        return Err(VolumeError::Kind { path: path.into(), kind });
    };
    Ok(Entry { path: below, mode: metadata.mode(), uid: metadata.uid(), gid: metadata.gid(), kind })
}

/// A folder alone, without what is in it and without a path.
///
/// # Errors
/// It can't be looked at.
pub fn folder_entry(path: &Path) -> Result<Entry, VolumeError> {
    Ok(folder(PathBuf::new(), &fs::metadata(path).map_err(failed(path))?))
}

fn folder(path: PathBuf, metadata: &Metadata) -> Entry {
    Entry { path, mode: metadata.mode(), uid: metadata.uid(), gid: metadata.gid(), kind: Kind::Folder }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> VolumeError + '_ {
    move |source| VolumeError::Read { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMITS: Limits = Limits { file: 10, folder: 20, entries: 5 };

    fn read_all(root: &Path) -> Result<Vec<Entry>, VolumeError> {
        read(root, LIMITS, &mut |_| Ok(()))
    }

    #[test]
    fn a_folder_comes_with_all_that_is_in_it_parents_first() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("..data")).unwrap();
        fs::write(root.path().join("..data/key"), "value").unwrap();
        symlink("..data/key", root.path().join("key")).unwrap();

        let mut entries = read_all(root.path()).unwrap();

        assert_eq!(entries[0].path, Path::new(""));
        let position = |path: &str| entries.iter().position(|entry| entry.path == Path::new(path)).unwrap();
        assert!(position("..data") < position("..data/key"));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(entries[2].kind, Kind::File(b"value".to_vec()));
        assert_eq!(entries[3].kind, Kind::Link(b"..data/key".to_vec()));
    }

    #[test]
    fn what_is_too_large_or_no_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, [0; 11]).unwrap();
        assert!(matches!(read_all(&file), Err(VolumeError::FileTooLarge { bytes: 11, most: 10, .. })));

        fs::write(root.path().join("other"), [0; 11]).unwrap();
        assert!(matches!(read_all(root.path()), Err(VolumeError::FolderTooLarge { most: 20, .. })));

        let socket = root.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = read_all(&socket).unwrap_err().to_string();
        assert!(error.contains("is a socket"), "{error}");
        assert!(read_all(Path::new("/dev/null")).unwrap_err().to_string().contains("device"));
    }
}
