//! The disk that the layers lie on.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::extent::{Extent, SECTOR};
use crate::error::{Doing, Failure, Reply};
use crate::uevent::Uevents;

/// The host grows the disk before it makes the call: this is for an interrupt to arrive.
const GROWTH: Duration = Duration::from_secs(10);

// <linux/blkpg.h>
const ADD_PARTITION: libc::c_int = 1;
const DELETE_PARTITION: libc::c_int = 2;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    op: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut Partition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    names: [u8; 128],
}

mod ioctl {
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(partition, 0x1269, super::Argument);
}

/// An open disk.
pub struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    /// Opens a disk by its path in `/dev`.
    pub fn open(path: &str) -> Reply<Self> {
        let file = File::open(path).doing(&format!("open {path}"))?;
        Ok(Self { file, path: path.into() })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sectors(&self) -> Reply<u64> {
        let mut bytes = 0;
        // SAFETY: BLKGETSIZE64 writes one u64, which `bytes` is.
        unsafe { ioctl::size_in_bytes(self.file.as_raw_fd(), &raw mut bytes) }
            .doing("read the disk's size")?;
        Ok(bytes / SECTOR)
    }

    /// Waits until the disk has so many sectors.
    pub async fn wait_for_sectors(&self, wanted: u64) -> Reply<()> {
        if self.sectors()? >= wanted {
            return Ok(());
        }
        // From here on no growth is missed: the events are taken first, then the size is looked at again.
        let events = Uevents::open().doing("listen for the disk's growth")?;
        let grown = async {
            while self.sectors()? < wanted {
                events.next().await.doing("listen for the disk's growth")?;
            }
            Ok(())
        };
        timeout(GROWTH, grown).await.unwrap_or_else(|_| {
            let have = self.sectors().unwrap_or_default();
            Err(Failure::deadline(format!("{} has {have} sectors, not {wanted}", self.path.display())))
        })
    }

    /// Makes this extent a partition.
    pub fn add_partition(&self, number: i32, extent: &Extent) -> nix::Result<()> {
        self.change(ADD_PARTITION, number, extent.start_bytes(), extent.length_bytes())
    }

    /// Removes a partition that nobody uses.
    pub fn delete_partition(&self, number: i32) -> nix::Result<()> {
        self.change(DELETE_PARTITION, number, 0, 0)
    }

    fn change(&self, op: libc::c_int, number: i32, start: i64, length: i64) -> nix::Result<()> {
        let mut data = Partition { start, length, number, names: [0; 128] };
        let size = libc::c_int::try_from(size_of::<Partition>()).unwrap_or_default();
        let argument = Argument { op, flags: 0, length: size, data: &raw mut data };
        // SAFETY: BLKPG reads an argument and the partition it points to; both live until the call returns.
        unsafe { ioctl::partition(self.file.as_raw_fd(), &raw const argument) }.map(drop)
    }

    /// The path of a partition, by the kernel's naming.
    pub fn partition_path(&self, number: i32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        let digit_at_end =
            self.path.to_str().is_some_and(|path| path.ends_with(|last: char| last.is_ascii_digit()));
        if digit_at_end {
            name.push("p");
        }
        name.push(number.to_string());
        name.into()
    }
}
