//! Changes to a folder of shared files, many in one call.
//!
//! Each file and link takes its place by a rename, and the order is the host's: a folder like those of Kubernetes'
//! ConfigMaps, where one link decides what all readers see, goes from one state to the next in one step.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nacre_protocol::SHARED_FOLDER;
use nacre_protocol::nacre::{ChangeTreeRequest, TreeEntry};
use pathrs::flags::{OpenFlags, RenameFlags};
use pathrs::{Root, error::ErrorKind};

use super::{folder, link, mode, open, relative, set_owner};
use crate::error::{Doing, Failure, Reply};

/// What is not yet in its place has this name, beside it. Kubernetes' own names of that kind begin like this one, and
/// programs that list a volume skip them.
const TEMPORARY: &str = "..nacre-new";

/// Makes all changes, or those before the first that fails.
pub fn change(request: &ChangeTreeRequest) -> Reply<()> {
    change_below(Path::new(SHARED_FOLDER), request)
}

fn change_below(base: &Path, request: &ChangeTreeRequest) -> Reply<()> {
    let top = relative(&request.root)?;
    let root = open(base)?;
    if let Some(parent) = top.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        root.mkdir_all(parent, &mode(0o755)).map_err(|error| Failure::internal("make the folder", &error))?;
    }
    for entry in &request.put {
        put(&root, &below(&top, &entry.path)?, entry)?;
    }
    for path in &request.remove {
        let name = below(&top, path)?;
        match root.remove_all(&name) {
            Err(error) if error.kind() != ErrorKind::OsError(Some(libc::ENOENT)) => {
                return Err(Failure::internal(&format!("remove {}", name.display()), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A path below `top`, of plain names only.
fn below(top: &Path, path: &[u8]) -> Reply<PathBuf> {
    let path_below = Path::new(OsStr::from_bytes(path));
    let plain = path_below.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.contains(&0) {
        return Err(Failure::invalid(format!("the path {path_below:?} in a folder of shared files")));
    }
    Ok(if path.is_empty() { top.to_owned() } else { top.join(path_below) })
}

fn put(root: &Root, name: &Path, entry: &TreeEntry) -> Reply<()> {
    let temporary = name.with_file_name(TEMPORARY);
    let is_folder = entry.mode & libc::S_IFMT == libc::S_IFDIR;
    // Only between a folder and something else there is no replacing in one step.
    let there = root.resolve_nofollow(name).ok();
    let there = there.and_then(|there| File::from(OwnedFd::from(there)).metadata().ok());
    if entry.only_if_absent && there.is_some() {
        return Ok(());
    }
    if there.is_some_and(|there| there.is_dir() != is_folder) {
        root.remove_all(name)
            .map_err(|error| Failure::internal(&format!("replace {}", name.display()), &error))?;
    }
    let owner = (Some(entry.uid), Some(entry.gid));
    match entry.mode & libc::S_IFMT {
        libc::S_IFDIR => folder(root, name, entry.mode, owner),
        libc::S_IFLNK => link(root, name, &temporary, &entry.data),
        libc::S_IFREG => {
            let flags =
                OpenFlags::O_WRONLY | OpenFlags::O_EXCL | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
            let _ = root.remove_file(&temporary);
            let mut file = root
                .create_file(&temporary, flags, &Permissions::from_mode(0o600))
                .map_err(|error| Failure::internal("make the file", &error))?;
            file.write_all(&entry.data).doing("write the file")?;
            set_owner(&file, owner)?;
            file.set_permissions(mode(entry.mode)).doing("set the file's mode")?;
            root.rename(&temporary, name, RenameFlags::empty())
                .map_err(|error| Failure::internal("name the file", &error))
        }
        other => Err(Failure::invalid(format!("a file of type {other:o}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn entry(path: &str, mode: u32, data: &[u8]) -> TreeEntry {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        TreeEntry { path: path.into(), mode, uid, gid, data: data.to_vec(), ..Default::default() }
    }

    fn request(put: Vec<TreeEntry>, remove: &[&str]) -> ChangeTreeRequest {
        let remove = remove.iter().map(|path| path.as_bytes().to_vec()).collect();
        ChangeTreeRequest { root: format!("{SHARED_FOLDER}/map"), put, remove, ..Default::default() }
    }

    #[test]
    fn a_map_is_made_switched_and_thinned_out() {
        let base = tempfile::tempdir().unwrap();
        let first = request(
            vec![
                entry("", libc::S_IFDIR | 0o2777, b""),
                entry("..1", libc::S_IFDIR | 0o755, b""),
                entry("..1/key", libc::S_IFREG | 0o440, b"old"),
                entry("..data", libc::S_IFLNK, b"..1"),
                entry("key", libc::S_IFLNK, b"..data/key"),
            ],
            &[],
        );
        change_below(base.path(), &first).unwrap();
        let map = base.path().join("map");
        assert_eq!(fs::read(map.join("key")).unwrap(), b"old");
        assert_eq!(map.metadata().unwrap().mode() & 0o7777, 0o2777);
        assert_eq!(map.join("key").metadata().unwrap().mode() & 0o7777, 0o440);

        let second = request(
            vec![
                entry("..2", libc::S_IFDIR | 0o755, b""),
                entry("..2/other", libc::S_IFREG | 0o644, b"new"),
                entry("..data", libc::S_IFLNK, b"..2"),
                entry("other", libc::S_IFLNK, b"..data/other"),
            ],
            &["key", "..1", "never-there"],
        );
        change_below(base.path(), &second).unwrap();

        let mut names: Vec<_> = fs::read_dir(&map)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..2", "..data", "other"]);
        assert_eq!(fs::read(map.join("other")).unwrap(), b"new");
    }

    #[test]
    fn a_reader_sees_the_old_map_or_the_new_one() {
        let base = tempfile::tempdir().unwrap();
        let state = |number: usize| {
            let name = format!("..{number}");
            let file = |path: &str| entry(&format!("{name}/{path}"), libc::S_IFREG | 0o644, name.as_bytes());
            let put = vec![
                entry(&name, libc::S_IFDIR | 0o755, b""),
                file("a"),
                file("b"),
                entry("..data", libc::S_IFLNK, name.as_bytes()),
            ];
            // The one before the last goes, so that a reader with its folder open is not cut off by haste.
            let gone = format!("..{}", number.wrapping_sub(2));
            request(put, &[gone.as_str()])
        };
        change_below(base.path(), &state(2)).unwrap();
        let data = base.path().join("map/..data");
        let reader = std::thread::spawn(move || {
            for _ in 0..2000 {
                let Ok(target) = fs::read_link(&data) else { panic!("the link was gone") };
                let folder = data.with_file_name(target);
                let (a, b) = (fs::read(folder.join("a")), fs::read(folder.join("b")));
                // Both were there before the link led to them.
                if let (Ok(a), Ok(b)) = (a, b) {
                    assert_eq!(a, b);
                    assert!(!a.is_empty());
                }
            }
        });
        for number in 3..200 {
            change_below(base.path(), &state(number)).unwrap();
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_file_takes_the_place_of_a_folder_and_the_other_way_round() {
        let base = tempfile::tempdir().unwrap();
        let folder = || entry("x", libc::S_IFDIR | 0o755, b"");
        let file = || entry("x", libc::S_IFREG | 0o644, b"file");
        let root = || entry("", libc::S_IFDIR | 0o755, b"");
        change_below(base.path(), &request(vec![root(), folder(), entry("x/y", libc::S_IFREG, b"1")], &[]))
            .unwrap();
        change_below(base.path(), &request(vec![file()], &[])).unwrap();
        assert_eq!(fs::read(base.path().join("map/x")).unwrap(), b"file");
        change_below(base.path(), &request(vec![folder()], &[])).unwrap();
        assert!(base.path().join("map/x").is_dir());
    }

    #[test]
    fn what_is_there_stays_if_that_is_asked_for() {
        let base = tempfile::tempdir().unwrap();
        let file =
            |data: &[u8]| TreeEntry { only_if_absent: true, ..entry("f", libc::S_IFREG | 0o600, data) };
        let root = entry("", libc::S_IFDIR | 0o755, b"");
        change_below(base.path(), &request(vec![root, file(b"first")], &[])).unwrap();
        change_below(base.path(), &request(vec![file(b"second")], &[])).unwrap();
        assert_eq!(fs::read(base.path().join("map/f")).unwrap(), b"first");
    }

    #[test]
    fn neither_names_nor_links_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let base = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "a/./../x"] {
            assert!(change_below(base.path(), &request(vec![entry(path, libc::S_IFREG, b"")], &[])).is_err());
            assert!(change_below(base.path(), &request(vec![], &[path])).is_err());
        }
        fs::create_dir(base.path().join("map")).unwrap();
        symlink(outside.path(), base.path().join("map/out")).unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let _ =
            change_below(base.path(), &request(vec![entry("out/file", libc::S_IFREG, b"x")], &["out/kept"]));
        assert!(!outside.path().join("file").exists());
        assert!(outside.path().join("kept").exists());
    }
}
