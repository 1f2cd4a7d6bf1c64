//! Trees of files: mounted for a test, and described in full so that two can be compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that ends with the test.
pub struct Mounted {
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Mounted {
    /// An image over a loop device; `None` when this machine can't.
    pub fn image(image: &File) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
        mount(&["-t", "erofs", "-o", "ro,loop", &source], folder.path())
            .then(|| Self { path: folder.path().to_owned(), _folder: Some(folder) })
    }

    /// Layers over each other, the uppermost last, for reading; `None` when this machine can't.
    pub fn overlay(layers: &[&Path]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let lower: Vec<&str> = layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
        let options = format!("ro,lowerdir={}", lower.join(":"));
        mount(&["-t", "overlay", "-o", &options, "overlay"], folder.path())
            .then(|| Self { path: folder.path().to_owned(), _folder: Some(folder) })
    }

    /// A small file system in memory; `None` when this machine can't.
    pub fn tmpfs(path: &Path, options: &str) -> Option<Self> {
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], path)
            .then(|| Self { path: path.to_owned(), _folder: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    Command::new("mount").args(arguments).arg(at).output().is_ok_and(|output| output.status.success())
}

/// Everything about every file, one line each.
pub fn describe(root: &Path) -> String {
    let mut paths = vec![root.to_owned()];
    let mut position = 0;
    while let Some(path) = paths.get(position).cloned() {
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        position += 1;
    }
    paths.sort();
    let mut first_links = BTreeMap::new();
    let mut text = String::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let link = first_links.entry(metadata.ino()).or_insert_with(|| name.clone());
        write!(
            text,
            "{} mode {:o} owner {}:{}",
            name.display(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid()
        )
        .unwrap();
        write!(text, " time {}.{:09}", metadata.mtime(), metadata.mtime_nsec()).unwrap();
        if !metadata.is_dir() {
            write!(text, " links {} first {}", metadata.nlink(), link.display()).unwrap();
            write!(text, " device {:x} content {}", metadata.rdev(), content(&path, &metadata)).unwrap();
        }
        writeln!(text, " attributes {}", attributes(&path)).unwrap();
    }
    text
}

fn content(path: &Path, metadata: &std::fs::Metadata) -> String {
    if metadata.is_symlink() {
        return std::fs::read_link(path).unwrap().display().to_string();
    }
    if !metadata.is_file() {
        return "none".into();
    }
    if metadata.len() < 1 << 20 {
        return format!("{:?}", std::fs::read(path).unwrap());
    }
    // A program, since a build with debug assertions takes minutes for a gigabyte.
    let output = Command::new("sha256sum").arg("--").arg(path).output().unwrap();
    let digest = String::from_utf8(output.stdout).unwrap();
    format!("{} {}", metadata.len(), digest.trim_start_matches('\\').get(..64).unwrap())
}

/// Without the empty mark that erofs-utils 1.9 puts on the root of a layer with whiteouts; overlayfs takes it as none.
fn attributes(path: &Path) -> String {
    let names = xattr::list(path).unwrap().filter(|name| name != "trusted.overlay.origin");
    let all: BTreeMap<_, _> =
        names.map(|name| (name.clone(), xattr::get(path, &name).unwrap().unwrap_or_default())).collect();
    format!("{all:?}")
}
