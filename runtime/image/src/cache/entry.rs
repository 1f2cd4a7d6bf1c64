//! One layer's image: found, waited for, or made.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::LayerCache;
use super::folder::{CacheFolder, FINISHED, FolderLock, MAKING, private, remove, uninterrupted};
use super::room;
use crate::error::LayerError;
use crate::image::{BLOCK, LayerImage};
use crate::key::LayerKey;
use crate::mkfs;
use crate::survey::Survey;

/// The finished image, if there is one.
pub(super) fn find(folder: &CacheFolder, key: &LayerKey) -> Result<Option<LayerImage>, LayerError> {
    let lock = folder.lock()?;
    open_finished(folder, key, &lock)
}

/// The image: found, waited for while another makes it, or made.
pub(super) fn get(cache: &LayerCache, layer: &Path, key: &LayerKey) -> Result<LayerImage, LayerError> {
    loop {
        let lock = cache.folder.lock()?;
        if let Some(image) = open_finished(&cache.folder, key, &lock)? {
            return Ok(image);
        }
        let path = cache.folder.file(key.as_str(), MAKING);
        match Making::begin(cache, layer, path, &lock)? {
            Begun::Ours(making) => {
                drop(lock);
                return making.make(cache, layer, Some(key));
            }
            Begun::Others(file) => {
                drop(lock);
                // Ends when the other's image is finished, has failed, or has lost its maker; the next round tells.
                uninterrupted(|| file.lock_shared())
                    .map_err(LayerError::cache(cache.folder.path(), "waiting for another maker"))?;
            }
        }
    }
}

/// The image of a folder, without a name in the cache.
pub(super) fn make_unkept(cache: &LayerCache, layer: &Path) -> Result<LayerImage, LayerError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    loop {
        let lock = cache.folder.lock()?;
        let path = cache.folder.file(&format!("unkept-{}-{number}", std::process::id()), MAKING);
        if let Begun::Ours(making) = Making::begin(cache, layer, path, &lock)? {
            drop(lock);
            return making.make(cache, layer, None);
        }
    }
}

/// Opens the finished image and marks it as used now. A damaged file is removed.
fn open_finished(
    folder: &CacheFolder,
    key: &LayerKey,
    _lock: &FolderLock,
) -> Result<Option<LayerImage>, LayerError> {
    let path = folder.file(key.as_str(), FINISHED);
    let opened = || {
        let file = private().read(true).open(&path)?;
        uninterrupted(|| file.lock_shared())?;
        file.set_modified(SystemTime::now())?;
        LayerImage::check(file)
    };
    match opened() {
        Ok(Some(image)) => Ok(Some(image)),
        Ok(None) => remove(&path).map(|()| None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LayerError::cache(&path, "opening an image")(error)),
    }
}

enum Begun {
    Ours(Making),
    Others(File),
}

/// An image that we are making. Dropped before it is finished, it leaves nothing.
struct Making {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Making {
    fn begin(
        cache: &LayerCache,
        layer: &Path,
        path: PathBuf,
        lock: &FolderLock,
    ) -> Result<Begun, LayerError> {
        let opened = || {
            let file = private().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => Ok(Begun::Ours(Self { path: path.clone(), file, finished: false })),
                Err(std::fs::TryLockError::WouldBlock) => Ok(Begun::Others(file)),
                Err(std::fs::TryLockError::Error(error)) => Err(error),
            }
        };
        match opened() {
            Ok(begun) => Ok(begun),
            Err(error) if full(&error) => {
                room::make(cache, layer, BLOCK, lock)?;
                opened().map_err(LayerError::cache(&path, "making a file"))
            }
            Err(error) => Err(LayerError::cache(&path, "making a file")(error)),
        }
    }

    /// Writes the image and gives it its name, if it has one.
    fn make(
        mut self,
        cache: &LayerCache,
        layer: &Path,
        key: Option<&LayerKey>,
    ) -> Result<LayerImage, LayerError> {
        let survey = Survey::of(layer)?;
        let needed = survey.estimated_bytes();
        room::make(cache, layer, needed, &cache.folder.lock()?)?;
        self.write(cache, layer, &survey).map_err(|error| self.or_no_space(cache, layer, needed, error))?;

        let reader = private().read(true).open(&self.path).map_err(self.failed("opening an image"))?;
        let Some(image) = LayerImage::check(reader).map_err(self.failed("reading an image"))? else {
            return Err(LayerError::NotAnImage { layer: layer.to_owned() });
        };
        let lock = cache.folder.lock()?;
        match key {
            Some(key) => std::fs::rename(&self.path, cache.folder.file(key.as_str(), FINISHED))
                .map_err(self.failed("naming an image"))?,
            None => remove(&self.path)?,
        }
        self.finished = true;
        // With the folder locked, nobody removes the image between the one lock and the other.
        uninterrupted(|| self.file.unlock()).map_err(self.failed("unlocking an image"))?;
        uninterrupted(|| image.file().lock_shared()).map_err(self.failed("locking an image"))?;
        drop(lock);
        Ok(image)
    }

    fn write(&self, cache: &LayerCache, layer: &Path, survey: &Survey) -> Result<(), LayerError> {
        let lock = self.file.try_clone().map_err(self.failed("locking an image"))?;
        mkfs::make(&cache.tool, layer, survey, &self.path, lock)?;
        let complete = || {
            // Some versions end the file right after the last byte of content.
            let bytes = self.file.metadata()?.len();
            self.file.set_len(bytes.next_multiple_of(BLOCK))?;
            self.file.sync_all()
        };
        complete().map_err(self.failed("writing an image"))
    }

    /// A failed write on a disk that has no space left failed for that reason; the tool has no code for it.
    fn or_no_space(&self, cache: &LayerCache, layer: &Path, needed: u64, error: LayerError) -> LayerError {
        let free = cache.folder.free_bytes().unwrap_or(u64::MAX);
        let out_of_space = match &error {
            LayerError::Cache { source, .. } => full(source),
            LayerError::ToolFailed { .. } => free < room::NEARLY_FULL,
            _ => false,
        };
        match out_of_space {
            true => room::no_space(cache, layer, needed, free),
            false => error,
        }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> LayerError {
        LayerError::cache(&self.path, doing)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The lock on the file, which others wait for, is released after this.
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
