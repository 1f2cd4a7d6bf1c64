//! Why a layer could not be had.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why a layer could not be had. Nothing is left behind in the cache folder.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Something about the cache folder or a file in it.
    #[error("layer cache {}: {doing} failed", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// SECURITY: whoever can write the folder decides what pods run.
    #[error(
        "layer cache {}: others may write it (mode {mode:03o}, owner {owner}); make it root's, with mode 700",
        path.display()
    )]
    CacheWritable {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// The disk is full, even without the layers that nobody uses.
    #[error(
        "no space left in {} for image layer {}: it needs about {needed_mib} MiB, {free_mib} MiB are free; \
         free some space or set image.cache_path to a folder on a larger disk",
        folder.display(), layer.display()
    )]
    NoSpace {
        /// The cache folder.
        folder: PathBuf,
        /// The layer's folder.
        layer: PathBuf,
        /// What the image takes, estimated.
        needed_mib: u64,
        /// What the file system has.
        free_mib: u64,
    },
    /// An image without layers, and nothing in the container's own folder.
    #[error("the root file system is empty: its image has no layers")]
    Empty,
    /// The layer's folder cannot be read.
    #[error("image layer {}: cannot be read", path.display())]
    Layer {
        /// The folder, or what in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tool is not there.
    #[error("mkfs.erofs is not installed: install the package erofs-utils")]
    ToolMissing,
    /// The tool could not be started.
    #[error("mkfs.erofs cannot be started")]
    ToolStart(#[source] io::Error),
    /// The tool failed.
    #[error("mkfs.erofs failed for image layer {} ({status}): {output}{hint}", layer.display())]
    ToolFailed {
        /// The layer's folder.
        layer: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
        /// What may be the reason, if the layer has something unusual.
        hint: &'static str,
    },
    /// The tool succeeded, but what it wrote is no image.
    #[error("mkfs.erofs made no usable image of layer {}", layer.display())]
    NotAnImage {
        /// The layer's folder.
        layer: PathBuf,
    },
}

impl LayerError {
    pub(crate) fn cache(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Cache { path: path.to_owned(), doing, source }
    }

    pub(crate) fn layer(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Layer { path: path.to_owned(), source }
    }
}
