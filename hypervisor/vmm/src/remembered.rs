//! Hashes of files, remembered from one start to the next: hashing a kernel and an initrd takes longer than all else that the
//! host does for a measured start.
//!
//! A small file for each hashed file, which the shim opens, says which version of that file the hashes are of: device,
//! inode, size and the times of the last changes. Whatever is wrong with it, the hashes are computed again.
//!
//! SECURITY: nothing relies on these hashes. They become part of what is measured, and stage0 compares its private copy with
//! them: a stale or wrong one gives a guest that stops, or whose measurement nobody expects. The guest may take over the
//! VMM, so the file is closed before its first instruction.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use nacre_launch::Sha256Hash;
use zerocopy::byteorder::little_endian::{I64, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of the file; another number in it is another format.
const MAGIC: [u8; 8] = *b"nacreH01";
/// A kernel has a handful of segments.
const MOST_HASHES: usize = 64;
/// A file that was changed less than this ago may be changed again without its times showing it: the coarsest times that
/// Linux's file systems keep are of two seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// A version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Version {
    magic: [u8; 8],
    device: U64,
    inode: U64,
    size: U64,
    modified: [I64; 2],
    changed: [I64; 2],
}

const HEADER: usize = size_of::<Version>();

impl Version {
    /// The version that `file` is now.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            magic: MAGIC,
            device: metadata.dev().into(),
            inode: metadata.ino().into(),
            size: metadata.size().into(),
            modified: [metadata.mtime().into(), metadata.mtime_nsec().into()],
            changed: [metadata.ctime().into(), metadata.ctime_nsec().into()],
        })
    }

    /// Whether any later change would show, seen at `now`.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = i64::try_from(now.saturating_sub(SETTLED).as_secs()).unwrap_or(0);
        [self.modified, self.changed].iter().all(|[seconds, _]| seconds.get() < settled)
    }
}

/// Where the hashes of one file are remembered.
#[derive(Debug)]
pub struct Remembered {
    file: File,
}

impl Remembered {
    /// In `file`, open for reading and writing, which may be empty.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self { file }
    }

    /// The hashes of this version; none where they are not known, or somebody writes them just now.
    #[must_use]
    pub fn recall(&self, version: &Version) -> Vec<Sha256Hash> {
        self.read(version).unwrap_or_default()
    }

    fn read(&self, version: &Version) -> Option<Vec<Sha256Hash>> {
        self.file.try_lock_shared().ok()?;
        let mut bytes = [0; HEADER + MOST_HASHES * size_of::<Sha256Hash>()];
        let read = self.file.read_at(&mut bytes, 0);
        self.file.unlock().ok()?;
        let (known, hashes) = Version::read_from_prefix(bytes.get(..read.ok()?)?).ok()?;
        let (hashes, rest) = hashes.as_chunks();
        (known == *version && rest.is_empty()).then(|| hashes.to_vec())
    }

    /// Remembers the hashes of `hashed`, which was `version` before it was read. Without success nothing is remembered.
    pub fn remember(&self, hashed: &File, version: &Version, hashes: &[Sha256Hash]) {
        let unchanged = Version::of(hashed).is_ok_and(|after| after == *version);
        if unchanged && version.is_settled(SystemTime::now()) && hashes.len() <= MOST_HASHES {
            // The next start computes them again.
            let _ = self.write(version, hashes);
        }
    }

    fn write(&self, version: &Version, hashes: &[Sha256Hash]) -> io::Result<()> {
        self.file.try_lock()?;
        // The version comes last: hashes of which only a part was written have none.
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(hashes.as_bytes(), HEADER as u64))
            .and_then(|()| self.file.write_all_at(version.as_bytes(), 0));
        self.file.unlock().and(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: [Sha256Hash; 2] = [[1; 32], [2; 32]];

    /// A file that was changed long ago, and where its hashes are remembered.
    fn files() -> (File, Remembered) {
        let hashed = tempfile::tempfile().unwrap();
        hashed.write_all_at(b"kernel", 0).unwrap();
        (hashed, Remembered::new(tempfile::tempfile().unwrap()))
    }

    fn version(file: &File) -> Version {
        Version::of(file).unwrap()
    }

    #[test]
    fn hashes_are_known_of_the_version_they_were_made_of_only() {
        let (hashed, remembered) = files();
        let first = version(&hashed);
        assert!(remembered.recall(&first).is_empty());
        remembered.write(&first, &HASHES).unwrap();
        assert_eq!(remembered.recall(&first), HASHES);

        hashed.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(remembered.recall(&version(&hashed)).is_empty());
        let (other, _) = files();
        assert!(remembered.recall(&version(&other)).is_empty());
        assert!(remembered.recall(&Version { size: 7.into(), ..first }).is_empty());

        remembered.write(&version(&other), HASHES.get(..1).unwrap()).unwrap();
        assert_eq!(remembered.recall(&version(&other)), [[1; 32]]);
        assert!(remembered.recall(&first).is_empty());
    }

    #[test]
    fn nothing_is_remembered_of_a_file_that_changes() {
        let (hashed, remembered) = files();
        let before = version(&hashed);
        // It was written just now: it may be written again in the same tick.
        remembered.remember(&hashed, &before, &HASHES);
        assert!(remembered.recall(&before).is_empty());

        let settled = SystemTime::now() + SETTLED + Duration::from_secs(2);
        assert!(before.is_settled(settled) && !before.is_settled(SystemTime::now()));
        hashed.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!version(&hashed).is_settled(SystemTime::now()), "its inode was changed just now");
    }

    #[test]
    fn a_file_that_does_not_change_is_remembered() {
        // Something that was there before this test.
        let hashed = File::open("/proc/self/exe").unwrap();
        let (_, remembered) = files();
        let version = version(&hashed);
        if version.is_settled(SystemTime::now()) {
            remembered.remember(&hashed, &version, &HASHES);
            assert_eq!(remembered.recall(&version), HASHES);
            remembered.remember(&hashed, &Version { inode: 0.into(), ..version }, &[]);
            assert_eq!(remembered.recall(&version), HASHES, "it changed while it was hashed");
        }
    }

    #[test]
    fn damage_and_locks_are_the_same_as_not_knowing() {
        let (hashed, remembered) = files();
        let version = version(&hashed);
        remembered.write(&version, &HASHES).unwrap();
        for len in [HEADER as u64 + 33, HEADER as u64 - 1, 0] {
            remembered.file.set_len(len).unwrap();
            assert!(remembered.recall(&version).is_empty(), "{len} bytes");
        }
        // A writer that died before the version was written.
        remembered.file.write_all_at(HASHES.as_bytes(), HEADER as u64).unwrap();
        assert!(remembered.recall(&version).is_empty());

        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let path = folder.path().join("hashes");
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let (one, other) = (Remembered::new(open()), Remembered::new(open()));
        one.write(&version, &HASHES).unwrap();
        other.file.lock().unwrap();
        assert!(one.recall(&version).is_empty());
        assert!(one.write(&version, &HASHES).is_err());
        other.file.unlock().unwrap();
        assert_eq!(one.recall(&version), HASHES);
    }
}
