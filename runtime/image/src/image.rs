//! A finished image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The block size of images, and so what their size is a multiple of.
pub(crate) const BLOCK: u64 = 4096;

/// Where an EROFS superblock starts, and what it starts with (Linux, fs/erofs/erofs_fs.h).
const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;

/// A layer as an EROFS image, opened for reading. While the file, or a duplicate of it in any process, is open, the
/// cache keeps the image.
#[derive(Debug)]
pub struct LayerImage {
    file: File,
    bytes: u64,
}

impl LayerImage {
    /// Takes an opened image; `None` when the file is none.
    pub(crate) fn check(file: File) -> io::Result<Option<Self>> {
        let bytes = file.metadata()?.len();
        if bytes < BLOCK || bytes % BLOCK != 0 {
            return Ok(None);
        }
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, SUPERBLOCK_OFFSET)?;
        Ok((u32::from_le_bytes(magic) == MAGIC).then_some(Self { file, bytes }))
    }

    /// The size, a multiple of 4096 and not zero.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, opened for reading only.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The file, opened for reading only. It holds a shared lock, which keeps the image in the cache until the last
    /// duplicate is closed.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}
