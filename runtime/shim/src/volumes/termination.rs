//! The termination log: a file of the host that gets what the container wrote to its copy.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

/// As much as kubelet reads.
const MOST: usize = 4096;

/// Whether a writable file that is mounted on `destination` is one: by the name that kubelet gives it if nobody says
/// otherwise, or by kubelet's own place for it, `…/pods/<uid>/containers/<name>/<8 hexadecimal digits>`.
pub fn is_one(source: &Path, destination: &Path) -> bool {
    if destination == Path::new("/dev/termination-log") {
        return true;
    }
    let names: Vec<&str> = source
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let is_hash = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(names.as_slice(), [.., "pods", _, "containers", _, hash] if is_hash(hash))
}

/// The host's file, open from the container's start on. SECURITY: what a guest says goes to this very file whatever
/// its path has become, and no more than kubelet reads.
#[derive(Debug)]
pub struct HostFile(File);

impl HostFile {
    /// Opens the file.
    ///
    /// # Errors
    /// It can't be written, or is no file.
    pub fn open(source: &Path) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(source)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self(file))
    }

    /// Replaces the file's content by the end of `text`.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let bytes = text.as_bytes();
        let end = bytes.get(bytes.len().saturating_sub(MOST)..).unwrap_or_default();
        self.0.set_len(0)?;
        io::Seek::rewind(&mut &self.0)?;
        (&self.0).write_all(end)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/x", "/dev/termination-log", true)]
    #[case("/var/lib/kubelet/pods/u/containers/web/0a1b2c3d", "/var/log/why", true)]
    #[case("/var/lib/kubelet/pods/u/containers/web/notahash", "/var/log/why", false)]
    #[case("/var/lib/kubelet/pods/u/etc-hosts", "/etc/hosts", false)]
    fn a_termination_log_is_known_by_its_place(
        #[case] source: &str,
        #[case] destination: &str,
        #[case] one: bool,
    ) {
        assert_eq!(is_one(Path::new(source), Path::new(destination)), one);
    }

    #[test]
    fn the_host_gets_the_end_of_what_was_written_and_only_into_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "before, and longer than what follows").unwrap();
        let file = HostFile::open(&path).unwrap();
        file.write("reason").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"reason");
        file.write(&format!("{}end", "x".repeat(10_000))).unwrap();
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with(b"xend"));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(HostFile::open(&link).is_err());
        assert!(HostFile::open(folder.path()).is_err());
    }
}
