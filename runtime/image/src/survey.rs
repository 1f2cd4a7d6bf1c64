//! A look through a layer's folder before its image is made.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::LayerError;

/// A file that has less on disk than its size says by at least this is worth an image with holes.
const HOLE_BYTES: u64 = 64 << 10;

/// The most bytes of a name (NAME_MAX).
const NAME_BYTES: usize = 255;

/// What an entry takes in an image besides content: inode, names, attributes; generous.
const ENTRY_BYTES: u64 = 512;

/// The superblock's block and the rest.
const FIXED_BYTES: u64 = 64 << 10;

/// What a look through a folder shows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Files, folders and everything else, without the folder itself.
    pub entries: u64,
    /// Some file has holes that would be written out in full.
    pub holes: bool,
    /// Some name has the most bytes that a name can have.
    pub longest_name: bool,
    /// The size of all files, hard links once.
    sizes: u64,
    /// What they take on disk.
    allocated: u64,
}

impl Survey {
    pub fn of(folder: &Path) -> Result<Self, LayerError> {
        let mut survey = Self::default();
        let mut linked = HashSet::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            survey.folder(&folder, &mut folders, &mut linked).map_err(LayerError::layer(&folder))?;
        }
        Ok(survey)
    }

    fn folder(
        &mut self,
        folder: &Path,
        folders: &mut Vec<PathBuf>,
        linked: &mut HashSet<u64>,
    ) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            self.entries += 1;
            self.longest_name |= entry.file_name().len() >= NAME_BYTES;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if !metadata.is_file() || (metadata.nlink() > 1 && !linked.insert(metadata.ino())) {
                continue;
            }
            let allocated = metadata.blocks().saturating_mul(512);
            self.sizes = self.sizes.saturating_add(metadata.len().next_multiple_of(4096));
            self.allocated = self.allocated.saturating_add(allocated);
            self.holes |= metadata.len().saturating_sub(allocated) >= HOLE_BYTES;
        }
        Ok(())
    }

    /// What the image will take, rather more than less.
    pub fn estimated_bytes(&self) -> u64 {
        // Chunks round up, so a file with holes can take somewhat more than on disk.
        let content = if self.holes { self.sizes.min(self.allocated.saturating_mul(2)) } else { self.sizes };
        content.saturating_add(self.entries.saturating_mul(ENTRY_BYTES)).saturating_add(FIXED_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn an_empty_folder_has_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Survey::of(folder.path()).unwrap(), Survey::default());
    }

    #[test]
    fn hard_links_count_once_and_holes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(folder.path().join("a"), folder.path().join("b")).unwrap();
        let survey = Survey::of(folder.path()).unwrap();
        assert_eq!((survey.entries, survey.holes, survey.sizes), (2, false, 1 << 20));

        File::create(folder.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let survey = Survey::of(folder.path()).unwrap();
        assert!(survey.holes);
        assert!(survey.estimated_bytes() < 8 << 20, "{survey:?}");
    }
}
