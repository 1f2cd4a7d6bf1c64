//! Files that the host copies in, in chunks.

use std::fs::Permissions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nacre_protocol::SHARED_FOLDER;
use nacre_protocol::agent::CopyFileRequest;
use pathrs::flags::{OpenFlags, RenameFlags};
use pathrs::{InodeType, Root};

use crate::error::{Doing, Failure, Reply};

pub(crate) mod tree;

/// More than a host copies: larger things are disks.
const MAX_SIZE: i64 = 1 << 30;

/// The longest target of a link.
const MAX_TARGET: usize = 4095;

/// Takes one chunk; the file gets its name, owner and mode with the last one.
pub fn copy(request: &CopyFileRequest) -> Reply<()> {
    copy_below(Path::new(SHARED_FOLDER), request)
}

fn copy_below(base: &Path, request: &CopyFileRequest) -> Reply<()> {
    let name = relative(&request.path)?;
    let root = open(base)?;
    if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let folder_mode = if request.dir_mode & 0o7777 == 0 { 0o755 } else { request.dir_mode };
        root.mkdir_all(parent, &mode(folder_mode))
            .map_err(|error| Failure::internal("make the folder", &error))?;
    }
    match request.file_mode & libc::S_IFMT {
        libc::S_IFDIR => folder(&root, &name, request.file_mode, owner(request)),
        libc::S_IFLNK => link(&root, &name, &temporary(&name), &request.data),
        libc::S_IFREG | 0 => chunk(&root, &name, request, &mode(request.file_mode)),
        other => Err(Failure::invalid(format!("a file of type {other:o}"))),
    }
}

fn open(base: &Path) -> Reply<Root> {
    std::fs::create_dir_all(base).doing("make the folder of shared files")?;
    // SECURITY: whatever links lie on the way, resolution stays below the base (openat2, RESOLVE_IN_ROOT).
    Root::open(base).map_err(|error| Failure::internal("open the folder of shared files", &error))
}

fn mode(mode: u32) -> Permissions {
    Permissions::from_mode(mode & 0o7777)
}

/// Makes a folder or gives one that is there the mode and owner.
fn folder(root: &Root, name: &Path, bits: u32, owner: Owner) -> Reply<()> {
    // The bits beyond are set once the owner is.
    let folder = root
        .mkdir_all(name, &mode(bits & 0o1777))
        .map_err(|error| Failure::internal("make the folder", &error))?;
    let folder =
        folder.reopen(OpenFlags::O_RDONLY).map_err(|error| Failure::internal("open the folder", &error))?;
    set_owner(&folder, owner)?;
    folder.set_permissions(mode(bits)).doing("set the folder's mode")
}

/// The path below the base, of plain names only.
fn relative(path: &str) -> Reply<PathBuf> {
    let refused = || Failure::invalid(format!("the path {path:?} is not below {SHARED_FOLDER}"));
    let relative = Path::new(path).strip_prefix(SHARED_FOLDER).map_err(|_| refused())?;
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || relative.as_os_str().is_empty() || path.contains('\0') {
        return Err(refused());
    }
    Ok(relative.to_owned())
}

fn link(root: &Root, name: &Path, temporary: &Path, target: &[u8]) -> Reply<()> {
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(Failure::invalid("the target of a link"));
    }
    let target = PathBuf::from(std::ffi::OsStr::from_bytes(target));
    let _ = root.remove_file(temporary);
    root.create(temporary, &InodeType::Symlink(target))
        .map_err(|error| Failure::internal("make the link", &error))?;
    root.rename(temporary, name, RenameFlags::empty())
        .map_err(|error| Failure::internal("name the link", &error))
}

fn chunk(root: &Root, name: &Path, request: &CopyFileRequest, mode: &Permissions) -> Reply<()> {
    let size = request.file_size;
    let end = i64::try_from(request.data.len()).ok().and_then(|length| request.offset.checked_add(length));
    let end = end.filter(|end| request.offset >= 0 && *end <= size && size <= MAX_SIZE);
    let end = end.ok_or_else(|| {
        let (length, offset) = (request.data.len(), request.offset);
        Failure::invalid(format!("a chunk of {length} bytes at {offset} of a file of {size}"))
    })?;
    let temporary = temporary(name);
    let flags = OpenFlags::O_WRONLY | OpenFlags::O_CREAT | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
    let flags = if request.offset == 0 { flags | OpenFlags::O_TRUNC } else { flags };
    let mut file = root
        .create_file(&temporary, flags, &Permissions::from_mode(0o600))
        .map_err(|error| Failure::internal("open the file", &error))?;
    let offset = u64::try_from(request.offset).unwrap_or_default();
    file.seek(SeekFrom::Start(offset)).doing("find the chunk's place")?;
    file.write_all(&request.data).doing("write the chunk")?;
    if end < size {
        return Ok(());
    }
    set_owner(&file, owner(request))?;
    file.set_permissions(mode.clone()).doing("set the file's mode")?;
    root.rename(&temporary, name, RenameFlags::empty())
        .map_err(|error| Failure::internal("name the file", &error))
}

/// User and group; none is "leave as it is", as for chown(2).
type Owner = (Option<u32>, Option<u32>);

fn owner(request: &CopyFileRequest) -> Owner {
    (u32::try_from(request.uid).ok(), u32::try_from(request.gid).ok())
}

fn set_owner(file: &std::fs::File, (uid, gid): Owner) -> Reply<()> {
    fchown(file, uid, gid).doing("set the file's owner")
}

fn temporary(name: &Path) -> PathBuf {
    let mut temporary = name.as_os_str().to_owned();
    temporary.push(".tmp");
    temporary.into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn request(name: &str, data: &[u8]) -> CopyFileRequest {
        CopyFileRequest {
            path: format!("{SHARED_FOLDER}/{name}"),
            file_size: data.len().try_into().unwrap(),
            file_mode: libc::S_IFREG | 0o640,
            uid: -1,
            gid: -1,
            data: data.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_file_in_chunks_appears_whole_with_its_mode() {
        let base = tempfile::tempdir().unwrap();
        let mut first = request("web/hosts", b"hello ");
        first.file_size = 11;
        copy_below(base.path(), &first).unwrap();
        assert!(!base.path().join("web/hosts").exists());
        let mut second = request("web/hosts", b"world");
        (second.file_size, second.offset) = (11, 6);
        copy_below(base.path(), &second).unwrap();
        let path = base.path().join("web/hosts");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(!base.path().join("web/hosts.tmp").exists());
    }

    #[test]
    fn folders_and_links_are_made() {
        let base = tempfile::tempdir().unwrap();
        let mut folder = request("d", b"");
        folder.file_mode = libc::S_IFDIR | 0o711;
        copy_below(base.path(), &folder).unwrap();
        assert_eq!(base.path().join("d").metadata().unwrap().permissions().mode() & 0o7777, 0o711);
        let mut link = request("d/l", b"..data/x");
        link.file_mode = libc::S_IFLNK | 0o777;
        copy_below(base.path(), &link).unwrap();
        copy_below(base.path(), &link).unwrap();
        assert_eq!(std::fs::read_link(base.path().join("d/l")).unwrap(), Path::new("..data/x"));
    }

    #[test]
    fn links_on_the_way_do_not_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), base.path().join("out")).unwrap();
        let _ = copy_below(base.path(), &request("out/file", b"x"));
        assert!(!outside.path().join("file").exists());
        std::os::unix::fs::symlink(outside.path().join("file"), base.path().join("f.tmp")).unwrap();
        let _ = copy_below(base.path(), &request("f", b"x"));
        assert!(!outside.path().join("file").exists());
    }

    #[rstest]
    #[case("/etc/passwd")]
    #[case("/run/kata-containers/shared/containers")]
    #[case("/run/kata-containers/shared/containers/../x")]
    #[case("/run/kata-containers/shared/containers/a/../../x")]
    #[case("run/kata-containers/shared/containers/x")]
    fn paths_elsewhere_are_refused(#[case] path: &str) {
        assert!(relative(path).is_err());
    }

    #[rstest]
    #[case(-1, 1)]
    #[case(0, 0)]
    #[case(1, 1)]
    #[case(0, i64::MAX)]
    #[case(i64::MAX, i64::MAX)]
    fn chunks_outside_of_the_file_are_refused(#[case] offset: i64, #[case] size: i64) {
        let base = tempfile::tempdir().unwrap();
        let mut bad = request("x", b"1");
        (bad.offset, bad.file_size) = (offset, size);
        assert!(copy_below(base.path(), &bad).is_err());
    }
}
