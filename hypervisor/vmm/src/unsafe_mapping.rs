//! Memory of the VMM's that a guest sees beside its RAM: stage0's image and the shared window.
#![allow(unsafe_code)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// The size of a page.
const PAGE: usize = 4096;

/// Whole pages of memory that belong to nobody else. Only whole copies go in and out, and only before the guest runs:
/// what the guest writes later is never looked at through this.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<libc::c_void>,
    len: NonZeroUsize,
}

// SAFETY: the mapping is owned, and its pages have no tie to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives away only the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeros of `len` bytes, rounded up to pages.
    ///
    /// # Errors
    /// The address space is exhausted, or `len` is zero.
    pub fn zeros(len: usize) -> Result<Self, Errno> {
        let len = whole_pages(len)?;
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { mmap_anonymous(None, len, protection, flags)? };
        Ok(Self { start, len })
    }

    /// A file's first `len` bytes, then zeros up to the end of the page. The page cache is shared until the guest
    /// writes; a write never reaches the file.
    ///
    /// # Errors
    /// The file can't be mapped, or `len` is zero.
    pub fn file(file: &File, len: usize) -> Result<Self, Errno> {
        let len = whole_pages(len)?;
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: as in `zeros`. A file that shrinks later makes an access fail with SIGBUS: the access is the guest's,
        // through KVM, which reports it instead.
        let start = unsafe { mmap(None, len, protection, flags, file, 0)? };
        Ok(Self { start, len })
    }

    /// Where it is in this process.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// How long it is in bytes.
    pub fn size(&self) -> u64 {
        self.len.get() as u64
    }

    /// Copies `bytes` to the mapping's start. `None` if they do not fit.
    pub fn fill(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.len() > self.len.get() {
            return None;
        }
        // SAFETY: the target has room, is writable and exclusively borrowed; the source is another object.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().cast(), bytes.len()) };
        Some(())
    }

    /// The page at `offset`. `None` behind the end.
    pub fn page(&self, offset: usize) -> Option<[u8; PAGE]> {
        offset.checked_add(PAGE).filter(|end| *end <= self.len.get())?;
        let mut page = [0; PAGE];
        // SAFETY: the source lies within the mapping, and the guest does not run yet.
        unsafe {
            let from = self.start.as_ptr().byte_add(offset).cast();
            std::ptr::copy_nonoverlapping(from, page.as_mut_ptr(), PAGE);
        }
        Some(page)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped. Whoever shows it to a guest keeps it longer than the guest.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}

fn whole_pages(len: usize) -> Result<NonZeroUsize, Errno> {
    let rounded = len.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    NonZeroUsize::new(rounded).ok_or(Errno::EINVAL)
}
