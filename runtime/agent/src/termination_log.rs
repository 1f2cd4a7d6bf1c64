//! The file in which a container leaves the reason of its end, for Kubernetes to read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use pathrs::Root;
use pathrs::flags::OpenFlags;

/// The annotation that names the file inside the container, as Kubernetes and Kata have it.
const ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";

/// As much as Kubernetes reads.
const MOST: u64 = 4096;

/// Where the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminationLog {
    /// The guest's file behind a bind mount.
    Bound(PathBuf),
    /// In the container's root file system.
    Within { root: PathBuf, path: PathBuf },
}

impl TerminationLog {
    /// The file of a container with this specification; none if it has none.
    pub fn of(spec: &Spec) -> Option<Self> {
        let path =
            PathBuf::from(spec.annotations().as_ref()?.get(ANNOTATION).filter(|path| !path.is_empty())?);
        let bound = spec.mounts().iter().flatten().find(|mount| *mount.destination() == path);
        match bound.and_then(|mount| mount.source().clone()) {
            Some(source) => Some(Self::Bound(source)),
            None => Some(Self::Within { root: spec.root().as_ref()?.path().clone(), path }),
        }
    }

    /// The end of the file's text. A container that made something else of it has nothing to say.
    pub fn read(&self) -> io::Result<String> {
        // SECURITY: a container must not make the agent read a file of another or wait for a pipe.
        let flags =
            OpenFlags::O_RDONLY | OpenFlags::O_NOFOLLOW | OpenFlags::O_NONBLOCK | OpenFlags::O_CLOEXEC;
        let file = match self {
            Self::Bound(path) => open_plain(path)?,
            Self::Within { root, path } => {
                let root = Root::open(root).map_err(io::Error::other)?;
                let within = path.strip_prefix("/").unwrap_or(path);
                root.open_subpath(within, flags).map_err(io::Error::other)?
            }
        };
        tail(file)
    }
}

fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn tail(mut file: File) -> io::Result<String> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn spec(folder: &Path, mounts: &str) -> Spec {
        let text = format!(
            r#"{{"root": {{"path": "{}"}}, "mounts": {mounts}, "annotations": {{"{ANNOTATION}": "/dev/log"}}}}"#,
            folder.display()
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_bound_file_gives_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, format!("{}end", "x".repeat(5000))).unwrap();
        let mounts =
            format!(r#"[{{"destination": "/dev/log", "type": "bind", "source": "{}"}}]"#, file.display());
        let log = TerminationLog::of(&spec(folder.path(), &mounts)).unwrap();
        assert_eq!(log, TerminationLog::Bound(file.clone()));
        let text = log.read().unwrap();
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with("xend"));
    }

    #[test]
    fn a_link_or_a_pipe_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dev")).unwrap();
        let log = TerminationLog::of(&spec(folder.path(), "[]")).unwrap();
        let file = folder.path().join("dev/log");
        std::fs::write(&file, "reason").unwrap();
        assert_eq!(log.read().unwrap(), "reason");
        std::fs::remove_file(&file).unwrap();
        symlink("/etc/passwd", &file).unwrap();
        assert!(log.read().is_err());
        assert!(TerminationLog::Bound(file.clone()).read().is_err());
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(log.read().is_err());
        assert!(TerminationLog::Bound(file).read().is_err());
    }

    #[test]
    fn a_container_without_the_annotation_has_none() {
        assert_eq!(TerminationLog::of(&serde_json::from_str(r#"{"root": {"path": "/"}}"#).unwrap()), None);
    }
}
