//! The files that came with a message, each to be taken once.

use std::fs::File;
use std::os::fd::OwnedFd;

use nacre_control::{Extent, FileIndex};

/// Why a file that a message names is not there.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The message came with fewer files.
    #[error("{what} is file {index} of a message that came with {count}")]
    Missing {
        /// What it was for.
        what: &'static str,
        /// Its number.
        index: u8,
        /// How many came.
        count: usize,
    },
    /// Two parts of a message name the same file.
    #[error("{what} is file {index}, which another part of the message has taken")]
    Taken {
        /// What it was for.
        what: &'static str,
        /// Its number.
        index: u8,
    },
}

/// The files of one message. Those nobody takes are closed with it.
#[derive(Debug)]
pub struct Files {
    places: Vec<Option<OwnedFd>>,
}

impl Files {
    /// The files as they arrived.
    pub fn new(files: Vec<OwnedFd>) -> Self {
        Self { places: files.into_iter().map(Some).collect() }
    }

    /// Takes the descriptor at `index`, which is `what`.
    ///
    /// # Errors
    /// It did not come or was taken already.
    pub fn take(&mut self, index: FileIndex, what: &'static str) -> Result<OwnedFd, FilesError> {
        let count = self.places.len();
        let place = self.places.get_mut(usize::from(index.0)).ok_or(FilesError::Missing {
            what,
            index: index.0,
            count,
        })?;
        place.take().ok_or(FilesError::Taken { what, index: index.0 })
    }

    /// Takes the file at `index`, which is `what`.
    ///
    /// # Errors
    /// It did not come or was taken already.
    pub fn take_file(&mut self, index: FileIndex, what: &'static str) -> Result<File, FilesError> {
        self.take(index, what).map(File::from)
    }

    /// Takes the files of `extents` in order.
    ///
    /// # Errors
    /// One did not come or was taken already.
    pub fn take_extents(&mut self, extents: &[Extent]) -> Result<Vec<File>, FilesError> {
        extents.iter().map(|extent| self.take_file(extent.file, "a disk's extent")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_can_be_taken_once_and_only_if_it_came() {
        let mut files = Files::new(vec![tempfile::tempfile().unwrap().into()]);
        files.take(FileIndex(0), "the kernel").unwrap();
        let twice = files.take(FileIndex(0), "the initrd").unwrap_err().to_string();
        assert_eq!(twice, "the initrd is file 0, which another part of the message has taken");
        let missing = files.take(FileIndex(1), "a tap").unwrap_err().to_string();
        assert_eq!(missing, "a tap is file 1 of a message that came with 1");
    }
}
