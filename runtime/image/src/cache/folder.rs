//! The cache's folder, its names and its lock.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::LayerError;

/// The ending of a finished image.
pub(super) const FINISHED: &str = "erofs";

/// The ending of an image being written.
pub(super) const MAKING: &str = "making";

/// The cache's folder.
#[derive(Debug, Clone)]
pub(super) struct CacheFolder {
    path: PathBuf,
}

/// The right to add, open and remove names, until it is dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    /// Holds the lock.
    _file: File,
}

impl CacheFolder {
    pub fn open(path: &Path) -> Result<Self, LayerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(LayerError::cache(path, "making the folder"))?;
        let metadata = std::fs::metadata(path).map_err(LayerError::cache(path, "looking at the folder"))?;
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        if mode & 0o022 != 0 || owner != nix::unistd::geteuid().as_raw() {
            return Err(LayerError::CacheWritable { path: path.to_owned(), mode, owner });
        }
        Ok(Self { path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.path.join(format!("{name}.{ending}"))
    }

    /// Waits until nobody else has the lock; they have it briefly.
    pub fn lock(&self) -> Result<FolderLock, LayerError> {
        let path = self.path.join("lock");
        let locked = || {
            let file = private().read(true).write(true).create(true).truncate(false).open(&path)?;
            uninterrupted(|| file.lock())?;
            Ok(FolderLock { _file: file })
        };
        locked().map_err(LayerError::cache(&self.path, "locking the folder"))
    }

    /// What the file system has left for us.
    pub fn free_bytes(&self) -> Result<u64, LayerError> {
        nix::sys::statvfs::statvfs(&self.path)
            .map(|file_system| file_system.blocks_available().saturating_mul(file_system.fragment_size()))
            .map_err(|error| LayerError::cache(&self.path, "looking at the free space")(error.into()))
    }
}

/// Opens a small file beside the images for reading and writing, made empty when it is missing: for what a node has found
/// out and need not find out again. No image has the ending `note`, and no limit of the cache counts it.
///
/// # Errors
/// The folder can't be made or is not only ours, or the file can't be opened.
pub fn note(folder: &Path, name: &str) -> Result<File, LayerError> {
    let folder = CacheFolder::open(folder)?;
    let path = folder.file(name, "note");
    private()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(LayerError::cache(folder.path(), "opening a note"))
}

/// Options for files that only we may read.
pub(super) fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// Repeats a wait that a signal ended.
pub(super) fn uninterrupted(wait: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match wait() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), LayerError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LayerError::cache(path, "removing a file")(error))
        }
        _ => Ok(()),
    }
}
