//! Room for another image: the limit of the cache, and the disk's.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::LayerCache;
use super::folder::{FINISHED, FolderLock, MAKING, private, remove};
use crate::error::LayerError;

/// A disk with less than this left is the likely reason for a failed write.
pub(super) const NEARLY_FULL: u64 = 1 << 20;

/// A finished image in the folder.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes what dead makers left, and then images that nobody has open, the least recently used first, until
/// `needed` bytes more are within the cache's limit and the disk has them.
pub(super) fn make(
    cache: &LayerCache,
    layer: &Path,
    needed: u64,
    _lock: &FolderLock,
) -> Result<(), LayerError> {
    let folder = cache.folder.path();
    let mut entries = tidied(folder)?;
    entries.sort_by_key(|entry| entry.used);
    let mut taken: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut free = cache.folder.free_bytes()?;
    for entry in entries {
        if taken.saturating_add(needed) <= cache.limit && free >= needed {
            break;
        }
        if unused(&entry.path).is_some() {
            remove(&entry.path)?;
            taken = taken.saturating_sub(entry.bytes);
            free = cache.folder.free_bytes()?;
        }
    }
    match free >= needed {
        true => Ok(()),
        false => Err(no_space(cache, layer, needed, free)),
    }
}

pub(super) fn no_space(cache: &LayerCache, layer: &Path, needed: u64, free: u64) -> LayerError {
    LayerError::NoSpace {
        folder: cache.folder.path().to_owned(),
        layer: layer.to_owned(),
        needed_mib: needed.div_ceil(1 << 20),
        free_mib: free >> 20,
    }
}

/// The finished images; what dead makers left is removed.
fn tidied(folder: &Path) -> Result<Vec<Entry>, LayerError> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(LayerError::cache(folder, "listing the folder"))? {
        let entry = entry.map_err(LayerError::cache(folder, "listing the folder"))?;
        let path = entry.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some(FINISHED) => {
                // Gone since is as good as never there.
                let Ok(metadata) = entry.metadata() else { continue };
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { path, bytes: metadata.blocks().saturating_mul(512), used });
            }
            Some(MAKING) if unused(&path).is_some() => remove(&path)?,
            _ => {}
        }
    }
    Ok(entries)
}

/// The file with an exclusive lock, if nobody else has one.
fn unused(path: &Path) -> Option<File> {
    let file = private().read(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}
