//! Kernel, initrd and command line: where the host puts them, where stage0 copies them to, and their hashes.

mod kernel;

use nacre_stage0_abi::{AddressRange, Image, ImageKind, Images, MemoryMap, layout};
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use kernel::{Kernel, KernelError, KernelSegment};

/// Files begin in the window, and the initrd in memory, at a multiple of this, so that large pages can map them.
const ALIGNMENT: u64 = 2 << 20;

/// A file in the window that the guest shares with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSource {
    /// The kernel's ELF file, as it is.
    Kernel,
    /// The initrd's file, as it is.
    Initrd,
    /// The command line with its final zero.
    CommandLine,
}

/// SHA-256 of an image.
pub type Sha256Hash = [u8; 32];

/// Hashes that somebody has computed before, so that they need not be computed again. Nothing is checked against the files
/// here: stage0 does that with its own copy, and a wrong hash only makes the guest stop there.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownHashes<'a> {
    /// Of the kernel's segments in their order. With another number than there are segments it counts as not known.
    pub kernel: &'a [Sha256Hash],
    /// Of the initrd, one; none where it is not known.
    pub initrd: &'a [Sha256Hash],
}

/// What the host puts into the shared window. It is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRange {
    /// Where.
    pub range: AddressRange,
    /// What.
    pub source: ImageSource,
}

/// Kernel, initrd and command line of guests: the same for all sizes of them.
#[derive(Debug, Clone)]
pub struct GuestImages {
    entry: u64,
    images: Vec<Image>,
    shared: Vec<SharedRange>,
    command_line: Vec<u8>,
}

impl GuestImages {
    /// Places and hashes a kernel (an ELF file), an initrd (which may be empty: none) and a command line.
    ///
    /// # Errors
    /// The kernel is none, or the files don't fit into the window.
    pub fn new(kernel_file: &[u8], initrd: &[u8], command_line: &str) -> Result<Self, ImagesError> {
        Self::with_known(kernel_file, initrd, command_line, KnownHashes::default())
    }

    /// As [`GuestImages::new`], but hashes only what is not in `known`.
    ///
    /// # Errors
    /// As [`GuestImages::new`].
    pub fn with_known(
        kernel_file: &[u8],
        initrd: &[u8],
        command_line: &str,
        known: KnownHashes<'_>,
    ) -> Result<Self, ImagesError> {
        let kernel = Kernel::parse(kernel_file)?;
        if command_line.contains('\0') {
            return Err(ImagesError::CommandLine);
        }
        let command_line = [command_line.as_bytes(), &[0]].concat();
        let mut window = Window::default();
        let mut images = Vec::new();
        let mut shared = Vec::new();

        let range = window.place(kernel_file)?;
        shared.push(SharedRange { range, source: ImageSource::Kernel });
        let known_segments = Some(known.kernel).filter(|hashes| hashes.len() == kernel.segments.len());
        for (index, segment) in kernel.segments.iter().enumerate() {
            let hash = known_segments.and_then(|hashes| hashes.get(index)).copied();
            images.push(segment.image(kernel_file, range.start(), hash)?);
        }
        if !initrd.is_empty() {
            let range = window.place(initrd)?;
            shared.push(SharedRange { range, source: ImageSource::Initrd });
            let load = kernel.end.checked_next_multiple_of(ALIGNMENT).ok_or(ImagesError::TooLarge)?;
            let hash =
                Some(known.initrd).filter(|hashes| hashes.len() == 1).and_then(|hashes| hashes.first());
            images.push(whole(ImageKind::Initrd, initrd, range, load, hash.copied())?);
        }
        let range = window.place(&command_line)?;
        shared.push(SharedRange { range, source: ImageSource::CommandLine });
        images.push(whole(ImageKind::CommandLine, &command_line, range, layout::FIRST_LOAD, None)?);
        Ok(Self { entry: kernel.entry, images, shared, command_line })
    }

    /// The list for the hashes page of a guest with this memory.
    ///
    /// # Errors
    /// stage0 would refuse it, most often because the guest has too little memory.
    pub fn list(&self, memory: &MemoryMap) -> Result<Images, nacre_stage0_abi::ImagesError> {
        Images::new(self.entry, self.images.iter().copied(), memory)
    }

    /// Every image, in the order of the hashes page.
    #[must_use]
    pub fn all(&self) -> &[Image] {
        &self.images
    }

    /// The hashes of all images of a kind, to be [known](KnownHashes) the next time.
    #[must_use]
    pub fn hashes(&self, kind: ImageKind) -> Vec<Sha256Hash> {
        self.images.iter().filter(|image| image.kind == kind).map(|image| image.sha256).collect()
    }

    /// What the host puts into the shared window.
    #[must_use]
    pub fn shared(&self) -> &[SharedRange] {
        &self.shared
    }

    /// The command line's bytes with their final zero.
    #[must_use]
    pub fn command_line(&self) -> &[u8] {
        &self.command_line
    }
}

/// An image that is a whole file.
fn whole(
    kind: ImageKind,
    bytes: &[u8],
    source: AddressRange,
    load: u64,
    hash: Option<Sha256Hash>,
) -> Result<Image, ImagesError> {
    let target = AddressRange::new(load, source.len()).ok_or(ImagesError::TooLarge)?;
    Ok(Image { kind, source, target, sha256: hash.unwrap_or_else(|| Sha256::digest(bytes).into()) })
}

impl KernelSegment {
    fn image(&self, file: &[u8], base: u64, hash: Option<Sha256Hash>) -> Result<Image, ImagesError> {
        let bytes = file.get(self.file.clone()).ok_or(ImagesError::TooLarge)?;
        let start = u64::try_from(self.file.start).ok().and_then(|offset| base.checked_add(offset));
        let len = u64::try_from(bytes.len()).ok();
        let source = start.zip(len).and_then(|(start, len)| AddressRange::new(start, len));
        let source = source.ok_or(ImagesError::TooLarge)?;
        Ok(Image {
            kind: ImageKind::Kernel,
            source,
            target: self.target,
            sha256: hash.unwrap_or_else(|| Sha256::digest(bytes).into()),
        })
    }
}

/// The shared window while it is filled.
struct Window {
    free: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { free: layout::SHARED_WINDOW.start() }
    }
}

impl Window {
    fn place(&mut self, bytes: &[u8]) -> Result<AddressRange, ImagesError> {
        let len = u64::try_from(bytes.len()).map_err(|_| ImagesError::TooLarge)?;
        let range = AddressRange::new(self.free, len).ok_or(ImagesError::TooLarge)?;
        if !layout::SHARED_WINDOW.contains(range) {
            return Err(ImagesError::TooLarge);
        }
        self.free = range.end().next_multiple_of(ALIGNMENT);
        Ok(range)
    }
}

/// Why there are no images.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ImagesError {
    /// The kernel is none.
    #[error("kernel can't be started")]
    Kernel(#[from] KernelError),
    /// The command line has a zero within.
    #[error("command line with a zero byte")]
    CommandLine,
    /// The files don't fit into the window.
    #[error("kernel, initrd and command line need more than {} MiB", layout::SHARED_WINDOW.len() >> 20)]
    TooLarge,
}

#[cfg(test)]
pub(crate) mod tests;
