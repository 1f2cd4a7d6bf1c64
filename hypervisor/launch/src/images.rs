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
        for segment in &kernel.segments {
            images.push(segment.image(kernel_file, range.start())?);
        }
        if !initrd.is_empty() {
            let range = window.place(initrd)?;
            shared.push(SharedRange { range, source: ImageSource::Initrd });
            let load = kernel.end.checked_next_multiple_of(ALIGNMENT).ok_or(ImagesError::TooLarge)?;
            images.push(whole(ImageKind::Initrd, initrd, range, load)?);
        }
        let range = window.place(&command_line)?;
        shared.push(SharedRange { range, source: ImageSource::CommandLine });
        images.push(whole(ImageKind::CommandLine, &command_line, range, layout::FIRST_LOAD)?);
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
fn whole(kind: ImageKind, bytes: &[u8], source: AddressRange, load: u64) -> Result<Image, ImagesError> {
    let target = AddressRange::new(load, source.len()).ok_or(ImagesError::TooLarge)?;
    Ok(Image { kind, source, target, sha256: Sha256::digest(bytes).into() })
}

impl KernelSegment {
    fn image(&self, file: &[u8], base: u64) -> Result<Image, ImagesError> {
        let bytes = file.get(self.file.clone()).ok_or(ImagesError::TooLarge)?;
        let start = u64::try_from(self.file.start).ok().and_then(|offset| base.checked_add(offset));
        let len = u64::try_from(bytes.len()).ok();
        let source = start.zip(len).and_then(|(start, len)| AddressRange::new(start, len));
        let source = source.ok_or(ImagesError::TooLarge)?;
        Ok(Image {
            kind: ImageKind::Kernel,
            source,
            target: self.target,
            sha256: Sha256::digest(bytes).into(),
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
