//! Which layer a folder holds.
//!
//! The digests of an image's layers are not at hand: containerd gives the folders of its snapshots, whose numbers
//! start again when its database is made anew. A layer must never be served for another one, so its key names the
//! very folder and the last change of it:
//!
//! - path, inode number and file system: which folder it is now;
//! - the time of the inode's birth, to the nanosecond: a new folder with the same path and a reused inode number was
//!   made later. Nobody can set this time;
//! - the times of the last change of the folder and its attributes (ctime, mtime): nobody can set a ctime, either, so
//!   it replaces the birth time on file systems without one, and a change of owner over a whole snapshot (containerd's
//!   user name spaces) is seen.
//!
//! A change deep inside a folder is not seen. The snapshotter makes none: a folder that is somebody's lower layer was
//! committed, and overlayfs itself leaves the result undefined otherwise. The one folder that does change, a
//! container's upper layer, is never kept in the cache.
//!
//! Whatever changes without need (a restored backup, a disk with another device number) costs one new image.
//! [`FORMAT`] stands for how images are made; the version of mkfs.erofs is left out, since what an older one made
//! stays valid.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

/// Changes whenever the options for mkfs.erofs do, or when images made so far turn out to be wrong.
const FORMAT: u64 = 1;

/// The name of a layer in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerKey(String);

impl LayerKey {
    /// The key of the layer in `folder`, which must not be a symbolic link.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let handle = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(folder)?;
        let metadata = handle.metadata()?;
        let file_system = nix::sys::statvfs::fstatvfs(&handle)?;
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());

        let mut hash = Sha256::new();
        for number in [
            FORMAT,
            file_system.filesystem_id(),
            metadata.dev(),
            metadata.ino(),
            born.map_or(0, |born| born.as_secs()),
            born.map_or(0, |born| born.subsec_nanos().into()),
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
        ] {
            hash.update(number.to_le_bytes());
        }
        hash.update(folder.as_os_str().as_bytes());
        Ok(Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_folder_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(LayerKey::of(folder.path()).unwrap(), LayerKey::of(folder.path()).unwrap());
    }

    #[test]
    fn a_folder_made_anew_at_the_same_path_has_another_key() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("fs");
        std::fs::create_dir(&folder).unwrap();
        let first = LayerKey::of(&folder).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert_ne!(first, LayerKey::of(&folder).unwrap());
    }

    #[test]
    fn another_owner_or_mode_means_another_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let first = LayerKey::of(folder.path()).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert_ne!(first, LayerKey::of(folder.path()).unwrap());
    }

    #[test]
    fn a_symbolic_link_is_no_layer() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(LayerKey::of(&link).is_err());
    }
}
