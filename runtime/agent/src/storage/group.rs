//! Giving a volume to a group, as kubelet does with one that it mounts itself (`fsGroup` of a pod).
//!
//! Containers of the pod may change the volume meanwhile, and whoever wrote the disk chose its names: everything is
//! found below the volume's root and never through a link.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, fchownat};
use pathrs::Root;
use pathrs::flags::OpenFlags;

/// What the group may do with files.
const FILE: u32 = 0o660;
/// What it may do with folders, in which new files get the group.
const FOLDER: u32 = 0o2770;

/// Gives all below `volume` to `group`, or nothing if its root is the group's already and `once` is wanted.
///
/// # Errors
/// Something can't be changed; what comes after it is as it was.
pub fn give(volume: &Path, group: Gid, once: bool) -> io::Result<()> {
    let root = Root::open(volume).map_err(io::Error::other)?;
    let metadata = fs::metadata(volume)?;
    if once && metadata.gid() == group.as_raw() && metadata.mode() & FOLDER == FOLDER {
        return Ok(());
    }
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        let open = give_one(&root, &folder, group)?;
        // A folder when it was given, which is what is open.
        let Some(open) = open else { continue };
        for entry in fs::read_dir(format!("/proc/self/fd/{}", open.as_raw_fd()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                give_one(&root, &path, group)?;
            }
        }
    }
    Ok(())
}

/// Gives one thing to the group; a folder is returned. What went meanwhile is no error.
fn give_one(root: &Root, path: &Path, group: Gid) -> io::Result<Option<File>> {
    let handle = match root.resolve_nofollow(path) {
        Ok(handle) => handle,
        Err(error) if error.kind() == pathrs::error::ErrorKind::OsError(Some(libc::ENOENT)) => {
            return Ok(None);
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    let there = File::from(OwnedFd::from(handle.try_clone().map_err(io::Error::other)?));
    let metadata = there.metadata()?;
    fchownat(there.as_fd(), "", None, Some(group), AtFlags::AT_EMPTY_PATH)?;
    let Some(bits) = wanted(&metadata) else { return Ok(None) };
    let flags =
        if metadata.is_dir() { OpenFlags::O_RDONLY | OpenFlags::O_DIRECTORY } else { OpenFlags::O_RDONLY };
    let file = handle.reopen(flags | OpenFlags::O_CLOEXEC).map_err(io::Error::other)?;
    // After the owner, whose change clears bits.
    fchmod(&file, Mode::from_bits_truncate(metadata.mode() & 0o7777 | bits))?;
    Ok(metadata.is_dir().then_some(file))
}

/// The bits that something has to have; none for what is neither file nor folder.
fn wanted(metadata: &Metadata) -> Option<u32> {
    if metadata.is_dir() {
        Some(FOLDER)
    } else if metadata.is_file() {
        Some(FILE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn is_root() -> bool {
        let root = nix::unistd::getuid().is_root();
        if !root {
            eprintln!("NOT RUN HERE: needs root");
        }
        root
    }

    #[test]
    fn a_volume_and_all_below_it_are_the_groups_and_what_links_lead_to_is_not() {
        if !is_root() {
            return;
        }
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (folder, file) = (volume.path().join("a/b"), volume.path().join("a/b/file"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4700)).unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        symlink(outside.path(), folder.join("out")).unwrap();
        symlink(outside.path().join("kept"), folder.join("link")).unwrap();

        give(volume.path(), Gid::from_raw(1234), false).unwrap();

        let of = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!((of(volume.path()).0, of(volume.path()).1 & FOLDER), (1234, FOLDER));
        assert_eq!((of(&folder).0, of(&folder).1 & FOLDER), (1234, FOLDER));
        assert_eq!((of(&file).0, of(&file).1 & 0o770), (1234, 0o760));
        assert_eq!(of(&folder.join("link")).0, 1234);
        assert_ne!(of(outside.path()).0, 1234);
        assert_ne!(of(&outside.path().join("kept")).0, 1234);
    }

    #[test]
    fn a_volume_that_is_the_groups_is_left_alone_if_so_wanted() {
        if !is_root() {
            return;
        }
        let volume = tempfile::tempdir().unwrap();
        give(volume.path(), Gid::from_raw(1234), true).unwrap();
        fs::write(volume.path().join("file"), "").unwrap();
        nix::unistd::chown(&volume.path().join("file"), None, Some(Gid::from_raw(7))).unwrap();
        give(volume.path(), Gid::from_raw(1234), true).unwrap();
        assert_eq!(fs::metadata(volume.path().join("file")).unwrap().gid(), 7);
        give(volume.path(), Gid::from_raw(1234), false).unwrap();
        assert_eq!(fs::metadata(volume.path().join("file")).unwrap().gid(), 1234);
    }
}
