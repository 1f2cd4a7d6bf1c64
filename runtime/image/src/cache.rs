//! The node's cache: a folder with one image for each layer, shared by all shims.
//!
//! | name | what | locks on it (flock) |
//! |---|---|---|
//! | `lock` | empty | exclusive, briefly, by whoever adds, opens or removes a name |
//! | `<key>.erofs` | a finished image | shared, by everybody who has it open |
//! | `<key>.making` | an image being written | exclusive, by its maker and the maker's mkfs.erofs; those who wait for it ask for a shared one |
//! | `<name>.note` | what else a node remembers | its user's |
//!
//! A finished image got its name after it was synced, so that it is whole even after a loss of power. A lock ends
//! with the last process that has the file open, so that nothing has to be put right after a crash: an image that
//! nobody locks is not in use, and a file being written that nobody locks has lost its maker.

mod entry;
mod folder;
mod room;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::LayerError;
use crate::image::LayerImage;
use crate::key::LayerKey;
use crate::rootfs::RootFs;

use folder::CacheFolder;
pub use folder::note;

/// The node's cache of layers. Any number of processes may use the same folder.
#[derive(Debug, Clone)]
pub struct LayerCache {
    folder: CacheFolder,
    limit: u64,
    conversions: usize,
    tool: PathBuf,
}

impl LayerCache {
    /// Opens the cache in `folder`, which is made when it is missing. The least recently used images go when all
    /// together take more than `limit` bytes, unless somebody has them open. At most `conversions` layers are
    /// converted at the same time by one call.
    ///
    /// # Errors
    /// The folder cannot be made, or others may write it.
    pub fn open(folder: &Path, limit: u64, conversions: usize) -> Result<Self, LayerError> {
        let folder = CacheFolder::open(folder)?;
        Ok(Self { folder, limit, conversions: conversions.max(1), tool: "mkfs.erofs".into() })
    }

    /// The same cache with another mkfs.erofs than the one on the `PATH`.
    #[must_use]
    pub fn with_tool(mut self, tool: &Path) -> Self {
        tool.clone_into(&mut self.tool);
        self
    }

    /// The images of a root file system, bottom layer first; what is missing is made. The container's own layer is
    /// among them if it is not empty, as it is now, and is not kept.
    ///
    /// # Errors
    /// Whatever is wrong with the first layer that fails.
    pub fn root_fs(&self, root: &RootFs) -> Result<Vec<LayerImage>, LayerError> {
        let mut images = self.layers(&root.layers)?;
        if let Some(upper) = &root.upper {
            images.extend(self.changing_layer(upper)?);
        }
        match images.is_empty() {
            true => Err(LayerError::Empty),
            false => Ok(images),
        }
    }

    /// The images of layers, in the same order; what is missing is made.
    ///
    /// # Errors
    /// Whatever is wrong with the first layer that fails.
    pub fn layers(&self, layers: &[PathBuf]) -> Result<Vec<LayerImage>, LayerError> {
        let mut images = Vec::with_capacity(layers.len());
        let mut missing = VecDeque::new();
        for (index, layer) in layers.iter().enumerate() {
            let key = LayerKey::of(layer).map_err(LayerError::layer(layer))?;
            let image = entry::find(&self.folder, &key)?;
            if image.is_none() {
                missing.push_back((index, layer, key));
            }
            images.push(image);
        }
        for (index, image) in self.convert(missing)? {
            if let Some(place) = images.get_mut(index) {
                *place = Some(image);
            }
        }
        Ok(images.into_iter().flatten().collect())
    }

    fn convert(
        &self,
        missing: VecDeque<(usize, &PathBuf, LayerKey)>,
    ) -> Result<Vec<(usize, LayerImage)>, LayerError> {
        let workers = self.conversions.min(missing.len());
        let queue = Mutex::new(missing);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = || {
            let mut made = Vec::new();
            while let Some((index, layer, key)) = next() {
                match entry::get(self, layer, &key) {
                    Ok(image) => made.push((index, image)),
                    Err(error) => {
                        // The others finish what they have begun and begin nothing new.
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        return Err(error);
                    }
                }
            }
            Ok(made)
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mut made = work()?;
            for other in others {
                made.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(made)
        })
    }

    /// The image of a folder that may change later, if it has anything in it.
    fn changing_layer(&self, folder: &Path) -> Result<Option<LayerImage>, LayerError> {
        let mut entries = std::fs::read_dir(folder).map_err(LayerError::layer(folder))?;
        match entries.next() {
            None => Ok(None),
            Some(_) => entry::make_unkept(self, folder).map(Some),
        }
    }
}

#[cfg(test)]
mod tests;
