//! What containerd says about a container's root file system, understood or refused by name.

mod options;

use std::path::{Path, PathBuf};

use options::OverlayOptions;

/// One mount as containerd sends it.
#[derive(Debug, Clone, Copy)]
pub struct Mount<'a> {
    /// The file system's type: `overlay` or `bind` is what the overlayfs snapshotter makes.
    pub kind: &'a str,
    /// What is mounted; for a bind mount the folder.
    pub source: &'a str,
    /// Mount options, each one string.
    pub options: &'a [String],
}

/// The folders of a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// The image's layers, which no one changes any more, bottom first.
    pub layers: Vec<PathBuf>,
    /// The container's own layer on the host. Usually empty, since containers write inside their VM.
    pub upper: Option<PathBuf>,
    /// Mounted for reading only.
    pub read_only: bool,
}

/// A root file system that can't be given to a VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not one mount, as the overlayfs snapshotter makes.
    #[error("the root file system has {0} mounts, not one: only the overlayfs snapshotter is supported")]
    Count(usize),
    /// SECURITY: CVE-2026-24054: what kind of thing a mount is, is never guessed from its source.
    #[error("the root file system's mount type {0:?} is not supported: only the overlayfs snapshotter is")]
    Kind(String),
    /// An option that would change what the container sees.
    #[error("the root file system's mount option {0:?} is not supported")]
    Option(String),
    /// A folder that is no absolute path.
    #[error("the root file system's folder {0:?} is not an absolute path")]
    Relative(String),
    /// Nothing to run.
    #[error("the root file system has no layers")]
    NoLayers,
}

impl RootFs {
    /// Reads the mounts of containerd's overlayfs snapshotter: an overlay, or a bind mount for a single layer.
    ///
    /// # Errors
    /// Whatever is not understood or cannot be honoured, by name.
    pub fn from_mounts(mounts: &[Mount<'_>]) -> Result<Self, MountError> {
        let [mount] = mounts else { return Err(MountError::Count(mounts.len())) };
        let root = match mount.kind {
            "overlay" => overlay(mount)?,
            "bind" | "rbind" => bind(mount)?,
            other => return Err(MountError::Kind(other.to_owned())),
        };
        for folder in root.layers.iter().chain(&root.upper) {
            if !folder.is_absolute() {
                return Err(MountError::Relative(folder.display().to_string()));
            }
        }
        Ok(root)
    }
}

fn overlay(mount: &Mount<'_>) -> Result<RootFs, MountError> {
    let OverlayOptions { lower, upper, read_only } = OverlayOptions::parse(mount.options)?;
    if lower.is_empty() {
        return Err(MountError::NoLayers);
    }
    // Overlayfs lists the uppermost layer first.
    let layers = lower.into_iter().rev().map(PathBuf::from).collect();
    let read_only = read_only || upper.is_none();
    Ok(RootFs { layers, upper: upper.map(PathBuf::from), read_only })
}

/// For reading: a single layer. For writing: a container's own folder without any layer below.
fn bind(mount: &Mount<'_>) -> Result<RootFs, MountError> {
    let mut read_only = false;
    for option in mount.options {
        match option.as_str() {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "bind" | "rbind" => {}
            other => return Err(MountError::Option(other.to_owned())),
        }
    }
    let folder = Path::new(mount.source).to_owned();
    Ok(match read_only {
        true => RootFs { layers: vec![folder], upper: None, read_only },
        false => RootFs { layers: Vec::new(), upper: Some(folder), read_only },
    })
}

#[cfg(test)]
mod tests;
