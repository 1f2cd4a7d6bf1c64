//! Memory that a guest can be kept from, page by page.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};

use crate::error::Error;

const PAGE: usize = 4096;

/// Pages of a guest's memory. Only those that are open can be touched, by the guest or by the harness. Never unmapped: a
/// case is a process.
pub struct Backing {
    start: NonNull<libc::c_void>,
    open: Vec<bool>,
}

// SAFETY: the mapping has no tie to a thread.
unsafe impl Send for Backing {}

impl Backing {
    /// This many pages, all closed.
    pub fn new(pages: usize) -> Result<Self, Error> {
        let len = NonZeroUsize::new(pages * PAGE).ok_or_else(|| Error::Pages("no memory".into()))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_NONE, flags) };
        Ok(Self { start: start.map_err(Error::Memory)?, open: vec![false; pages] })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.open.len() * PAGE
    }

    /// Opens or closes pages.
    pub fn set_open(&mut self, page: usize, count: usize, open: bool) -> Result<(), Error> {
        let pages = self.open.get_mut(page..page + count);
        pages.ok_or_else(|| Error::Pages("not there".into()))?.fill(open);
        let protection =
            if open { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_NONE };
        // SAFETY: the pages lie within the mapping, and nobody but this type has pointers into it.
        unsafe { mprotect(self.start.byte_add(page * PAGE), count * PAGE, protection) }.map_err(Error::Memory)
    }

    /// Writes bytes into open pages. `None` if one is not open.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.is_open(offset, bytes.len()).then_some(())?;
        // SAFETY: the target is open and so within the mapping and writable; the source is another object.
        unsafe {
            let target = self.start.byte_add(offset).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len());
        }
        Some(())
    }

    /// Reads bytes from open pages. `None` if one is not open.
    pub fn read(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        self.is_open(offset, len).then_some(())?;
        let mut bytes = vec![0; len];
        // SAFETY: the source is open and so within the mapping and readable. A guest that writes to it meanwhile makes
        // the bytes old or new.
        unsafe {
            let source = self.start.byte_add(offset).cast::<u8>();
            std::ptr::copy_nonoverlapping(source.as_ptr(), bytes.as_mut_ptr(), len);
        }
        Some(bytes)
    }

    /// Shows `len` bytes from `offset` on to the guest at `gpa`. A length of zero takes the slot away.
    pub fn show(&self, vm: &VmFd, slot: u32, gpa: u64, offset: usize, len: usize) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: len as u64,
            userspace_addr: self.start.as_ptr() as u64 + offset as u64,
        };
        // SAFETY: the mapping is never unmapped.
        let shown = unsafe { vm.set_user_memory_region(region) };
        shown.map_err(|source| Error::Slot { slot, gpa, len: len as u64, source })
    }

    fn is_open(&self, offset: usize, len: usize) -> bool {
        let pages = self.open.get(offset / PAGE..(offset + len).div_ceil(PAGE));
        pages.is_some_and(|pages| pages.iter().all(|open| *open))
    }
}
