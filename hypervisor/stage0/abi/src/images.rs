//! The hashes page: what stage0 copies from the shared window into private memory, and the hashes that the
//! copies must have.
//!
//! A kernel is a list of segments, as its ELF file has them, so that stage0 needs no ELF reader: the host can
//! put the file into the window as it is.

use thiserror::Error;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::memory_map::MemoryMap;
use crate::range::AddressRange;
use crate::{PAGE_SIZE, layout};

/// "NACREIMG".
const MAGIC: u64 = u64::from_le_bytes(*b"NACREIMG");
const VERSION: u32 = 1;
/// A page lists at most this many images.
pub const MAX_IMAGES: usize = 16;
/// Linux on x86 takes a command line of this many bytes with its final zero (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_LIMIT: u64 = 2048;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// A loadable segment of the kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// The kernel command line with its final zero.
    CommandLine,
}

impl ImageKind {
    const fn number(self) -> u32 {
        match self {
            Self::Kernel => 1,
            Self::Initrd => 2,
            Self::CommandLine => 3,
        }
    }
}

/// Bytes that stage0 copies, checks, and leaves where the kernel will find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// What it is.
    pub kind: ImageKind,
    /// Where the host put it in the shared window, and how long it is.
    pub source: AddressRange,
    /// Where it has to be, with the zeros behind it that belong to a kernel's segment.
    pub target: AddressRange,
    /// SHA-256 of the bytes, without those zeros.
    pub sha256: [u8; 32],
}

/// All images and the kernel's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    entry: u64,
    images: [Option<Image>; MAX_IMAGES],
}

/// The page as it is in memory.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct HashesPage {
    magic: u64,
    version: u32,
    count: u32,
    entry: u64,
    images: [ImageEntry; MAX_IMAGES],
    reserved: [u8; 2920],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct ImageEntry {
    kind: u32,
    reserved: u32,
    source: u64,
    size: u64,
    load: u64,
    memory_size: u64,
    sha256: [u8; 32],
}

const _: () = {
    assert!(size_of::<HashesPage>() as u64 == PAGE_SIZE);
    assert!(size_of::<ImageEntry>() == 72);
};

impl Images {
    /// A list of images and the kernel's 64-bit entry, checked against where there is memory.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(
        entry: u64,
        images: impl IntoIterator<Item = Image>,
        memory: &MemoryMap,
    ) -> Result<Self, ImagesError> {
        let mut list = Self { entry, images: [None; MAX_IMAGES] };
        let mut images = images.into_iter();
        for (place, image) in list.images.iter_mut().zip(images.by_ref()) {
            *place = Some(image);
        }
        if images.next().is_some() {
            return Err(ImagesError::TooMany);
        }
        list.check(memory)?;
        Ok(list)
    }

    /// Reads and checks a page.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(page: &HashesPage, memory: &MemoryMap) -> Result<Self, ImagesError> {
        if page.magic != MAGIC || page.version != VERSION {
            return Err(ImagesError::NotHashes);
        }
        let count = usize::try_from(page.count).unwrap_or(usize::MAX);
        let (used, unused) = page.images.split_at_checked(count).ok_or(ImagesError::TooMany)?;
        let unused = unused.as_bytes().iter().chain(&page.reserved);
        if unused.into_iter().any(|byte| *byte != 0) || used.iter().any(|entry| entry.reserved != 0) {
            return Err(ImagesError::Reserved);
        }
        let mut list = Self { entry: page.entry, images: [None; MAX_IMAGES] };
        for (place, entry) in list.images.iter_mut().zip(used) {
            *place = Some(Image::parse(entry)?);
        }
        list.check(memory)?;
        Ok(list)
    }

    /// The page that says this.
    #[must_use]
    pub fn to_page(&self) -> HashesPage {
        let mut page =
            HashesPage { magic: MAGIC, version: VERSION, entry: self.entry, ..HashesPage::new_zeroed() };
        for (place, image) in page.images.iter_mut().zip(self.iter()) {
            *place = image.to_entry();
            page.count += 1;
        }
        page
    }

    /// The images in the order of the page.
    pub fn iter(&self) -> impl Iterator<Item = &Image> + '_ {
        self.images.iter().flatten()
    }

    /// The kernel's 64-bit entry.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The initrd, if there is one.
    #[must_use]
    pub fn initrd(&self) -> Option<&Image> {
        self.iter().find(|image| image.kind == ImageKind::Initrd)
    }

    /// The command line; a checked list has one.
    #[must_use]
    pub fn command_line(&self) -> Option<&Image> {
        self.iter().find(|image| image.kind == ImageKind::CommandLine)
    }

    fn check(&self, memory: &MemoryMap) -> Result<(), ImagesError> {
        for (index, image) in self.iter().enumerate() {
            image.check(memory)?;
            if self.iter().take(index).any(|other| other.target.overlaps(image.target)) {
                return Err(ImagesError::Overlap { load: image.target.start() });
            }
        }
        let count = |kind| self.iter().filter(|image| image.kind == kind).count();
        if count(ImageKind::CommandLine) != 1 || count(ImageKind::Initrd) > 1 {
            return Err(ImagesError::Kinds);
        }
        // The entry is an instruction of the kernel's file, not of the zeros behind it.
        let entry = AddressRange::new(self.entry, 1).ok_or(ImagesError::Entry(self.entry))?;
        let holds_entry = |image: &Image| image.kind == ImageKind::Kernel && image.file().contains(entry);
        if self.iter().any(holds_entry) { Ok(()) } else { Err(ImagesError::Entry(self.entry)) }
    }
}

impl Image {
    /// Where the copied bytes are; the rest of the target is zero.
    #[must_use]
    pub fn file(&self) -> AddressRange {
        // A target is at least as long as its source, which is never empty.
        AddressRange::new(self.target.start(), self.source.len()).unwrap_or(self.target)
    }

    fn parse(entry: &ImageEntry) -> Result<Self, ImagesError> {
        let kind = match entry.kind {
            1 => ImageKind::Kernel,
            2 => ImageKind::Initrd,
            3 => ImageKind::CommandLine,
            other => return Err(ImagesError::Kind(other)),
        };
        let source = AddressRange::new(entry.source, entry.size)
            .ok_or(ImagesError::Source { source_address: entry.source, size: entry.size })?;
        let target = AddressRange::new(entry.load, entry.memory_size)
            .ok_or(ImagesError::Target { load: entry.load, size: entry.memory_size })?;
        Ok(Self { kind, source, target, sha256: entry.sha256 })
    }

    fn to_entry(self) -> ImageEntry {
        ImageEntry {
            kind: self.kind.number(),
            reserved: 0,
            source: self.source.start(),
            size: self.source.len(),
            load: self.target.start(),
            memory_size: self.target.len(),
            sha256: self.sha256,
        }
    }

    fn check(&self, memory: &MemoryMap) -> Result<(), ImagesError> {
        let (source, target) = (self.source, self.target);
        if !layout::SHARED_WINDOW.contains(source) {
            return Err(ImagesError::Source { source_address: source.start(), size: source.len() });
        }
        // `boot_params` has room for addresses below 4 GiB, and the kernel's first tables cover no more.
        let allowed = target.start() >= layout::FIRST_LOAD
            && target.end() <= layout::DEVICE_GAP.start()
            && !target.overlaps(layout::LEGACY_HOLE)
            && memory.contains(target);
        let zeros_allowed = self.kind == ImageKind::Kernel || target.len() == source.len();
        if !allowed || !zeros_allowed || target.len() < source.len() {
            return Err(ImagesError::Target { load: target.start(), size: target.len() });
        }
        if self.kind == ImageKind::CommandLine && source.len() > COMMAND_LINE_LIMIT {
            return Err(ImagesError::CommandLine(source.len()));
        }
        Ok(())
    }
}

/// Why a hashes page is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ImagesError {
    /// The page does not begin like one, or is of another version.
    #[error("no hashes page of version {VERSION}")]
    NotHashes,
    /// There are more images than [`MAX_IMAGES`].
    #[error("more than {MAX_IMAGES} images")]
    TooMany,
    /// Bytes without a meaning are not zero.
    #[error("unused bytes of the hashes page are not zero")]
    Reserved,
    /// An image is of no known kind.
    #[error("unknown kind {0} of image")]
    Kind(u32),
    /// An image is not in the shared window.
    #[error("{size:#x} bytes at {source_address:#x} are not in the shared window")]
    Source {
        /// Its first address.
        source_address: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// An image would be loaded where there is no memory, something else, or shorter than it is.
    #[error("no image can be loaded as {size:#x} bytes at {load:#x}")]
    Target {
        /// Its first address.
        load: u64,
        /// Its length in memory in bytes.
        size: u64,
    },
    /// Two images would be loaded to the same addresses.
    #[error("image to be loaded at {load:#x} overlaps another one")]
    Overlap {
        /// The first address of the second of them.
        load: u64,
    },
    /// There is not exactly one command line, or more than one initrd.
    #[error("there must be one command line and at most one initrd")]
    Kinds,
    /// The command line is longer than Linux takes.
    #[error("command line of {0} bytes, Linux takes {COMMAND_LINE_LIMIT}")]
    CommandLine(u64),
    /// The entry is not in a segment of the kernel.
    #[error("entry {0:#x} is in no segment of the kernel")]
    Entry(u64),
}

#[cfg(test)]
mod tests;
