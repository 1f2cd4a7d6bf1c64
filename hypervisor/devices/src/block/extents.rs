//! Where the files of a disk lie. Maps don't change: growing and releasing make new ones.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::SECTOR;

/// Where an extent may begin, in bytes: the block size of the file systems in them.
const ALIGNMENT: u64 = 4096;
/// The most extents that a disk ever has: an image has 127 layers at most, a pod some tens of containers,
/// and each open file is a descriptor of the process.
const MAX_EXTENTS: usize = 16 * 1024;
/// The end of what a disk can address in bytes, far below where offsets overflow.
const MAX_BYTES: u64 = 1 << 60;

/// Why files can't be appended to a disk.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// Only a disk of extents grows.
    #[error("the disk is not made of extents")]
    NotExtents,
    /// An extent of nothing has no place.
    #[error("file {0} of the extents is empty")]
    Empty(usize),
    /// The size of a file can't be told.
    #[error("the size of file {index} of the extents can't be told")]
    Size {
        /// Which of the new files.
        index: usize,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There would be more than a disk may have.
    #[error("a disk has at most {MAX_EXTENTS} extents and {MAX_BYTES} bytes")]
    TooMuch,
}

/// The extents of a disk, in order of their places. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct ExtentMap {
    extents: Vec<Extent>,
    /// Where the next one begins: a multiple of [`ALIGNMENT`].
    end: u64,
}

#[derive(Debug, Clone)]
struct Extent {
    start: u64,
    length: u64,
    /// None when it was released.
    file: Option<Arc<File>>,
}

/// What a range of a disk begins with.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Bytes of a file.
    Data { file: BorrowedFd<'a>, offset: u64, length: u64 },
    /// What lies between an extent and the next.
    Zeros { length: u64 },
}

impl ExtentMap {
    /// In sectors.
    pub fn capacity(&self) -> u64 {
        self.end / SECTOR
    }

    /// A map with `files` behind what there is, and the first sector and number of sectors of each.
    pub fn grow(&self, files: Vec<File>) -> Result<(Self, Vec<(u64, u64)>), GrowError> {
        let mut grown = self.clone();
        let mut placed = Vec::with_capacity(files.len());
        for (index, mut file) in files.into_iter().enumerate() {
            let length = file.seek(SeekFrom::End(0)).map_err(|error| GrowError::Size { index, error })?;
            if length == 0 {
                return Err(GrowError::Empty(index));
            }
            let start = grown.end;
            let end = start
                .checked_add(length)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
                .filter(|end| *end <= MAX_BYTES && grown.extents.len() < MAX_EXTENTS)
                .ok_or(GrowError::TooMuch)?;
            grown.extents.push(Extent { start, length, file: Some(Arc::new(file)) });
            grown.end = end;
            placed.push((start / SECTOR, length.div_ceil(SECTOR)));
        }
        Ok((grown, placed))
    }

    /// A map without the files of the extents that begin at the sectors `starts`, or the one that isn't there.
    pub fn release(&self, starts: &[u64]) -> Result<Self, u64> {
        let mut rest = self.clone();
        for &sector in starts {
            let start = sector.checked_mul(SECTOR).ok_or(sector)?;
            let index =
                rest.extents.binary_search_by_key(&start, |extent| extent.start).map_err(|_| sector)?;
            let extent = rest.extents.get_mut(index).ok_or(sector)?;
            extent.file.take().ok_or(sector)?;
        }
        Ok(rest)
    }

    /// The files that are not released.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.extents.iter().filter_map(|extent| extent.file.as_ref()).map(|file| file.as_fd())
    }

    /// What there is at byte `at`, up to `wanted` bytes of it. None behind the end and where an extent was released.
    pub fn piece(&self, at: u64, wanted: u64) -> Option<Piece<'_>> {
        if at >= self.end || wanted == 0 {
            return None;
        }
        let following = self.extents.partition_point(|extent| extent.start <= at);
        let extent = self.extents.get(following.checked_sub(1)?)?;
        let file = extent.file.as_ref()?;
        let offset = at - extent.start;
        if let Some(left) = extent.length.checked_sub(offset).filter(|left| *left > 0) {
            return Some(Piece::Data { file: file.as_fd(), offset, length: left.min(wanted) });
        }
        let next = self.extents.get(following).map_or(self.end, |next| next.start);
        Some(Piece::Zeros { length: (next - at).min(wanted) })
    }
}

#[cfg(test)]
mod tests;
