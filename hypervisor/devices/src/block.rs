//! The block device (virtio 1.2, 5.2): reads, writes, flush and the serial number; nothing else.

mod extents;
mod request;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::event_loop::Poller;
use crate::fault::Fault;
use crate::queue::ActiveQueue;
use crate::transport::{self, Identity, Shared};
use crate::worker::{Activation, Backend, Progress};
use crate::{Device, Wiring};
use extents::ExtentMap;
pub use extents::GrowError;
use request::Storage;

/// The unit of positions and capacities, whatever a device's block size (virtio 1.2, 5.2.6).
pub const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 128;
/// A request also has a header and a status.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// The configuration space up to `seg_max`, and where that is.
const CONFIG_SIZE: usize = 60;
const CAPACITY_OFFSET: usize = 0;
const SEGMENTS_OFFSET: usize = 12;
/// Requests after which the driver hears of those that are done.
const BATCH: usize = 16;
/// Requests before other devices have their turn.
const BUDGET: usize = 64;

/// What is behind a disk.
#[derive(Debug)]
pub enum Backing {
    /// Read-only files one after the other, each beginning on a boundary of 4096 bytes. May be empty, and grows.
    Extents(Vec<File>),
    /// Files and block devices one after the other as above, of which there are none at first. Those that come open
    /// for writing can be written.
    Volumes,
    /// One file or block device.
    File {
        /// Open for writing unless `read_only`.
        file: File,
        /// Writes by the guest fail.
        read_only: bool,
    },
}

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The extents don't make a disk.
    #[error("a disk can't be made of its extents")]
    Extents(#[from] GrowError),
    /// The size of the file can't be told, or the process is out of descriptors.
    #[error("a disk can't be set up")]
    Io(#[from] io::Error),
}

/// Why a disk can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Only a disk of extents has parts.
    #[error("the disk is not made of extents")]
    NotExtents,
    /// There is no such extent, or it was released before.
    #[error("no extent begins at sector {0}")]
    Unknown(u64),
}

/// Changes the extents of a disk while it runs. For any thread.
#[derive(Debug, Clone)]
pub struct BlockHandle {
    /// The newest map. Held to look or to replace it, never during I/O. None for a disk of one file.
    map: Option<Arc<Mutex<Arc<ExtentMap>>>>,
    shared: Arc<Shared>,
}

impl BlockHandle {
    /// Appends files and tells the guest of the new capacity. Returns the first sector and the number of
    /// sectors of each.
    ///
    /// # Errors
    /// Nothing is appended if one of the files can't be.
    pub fn grow(&self, files: Vec<File>) -> Result<Vec<(u64, u64)>, GrowError> {
        let map = self.map.as_ref().ok_or(GrowError::NotExtents)?;
        let mut current = map.lock().unwrap_or_else(PoisonError::into_inner);
        let (grown, placed) = current.grow(files)?;
        let capacity = grown.capacity();
        *current = Arc::new(grown);
        // The lock is held so that two calls announce their capacities in order.
        self.shared.reconfigure(CAPACITY_OFFSET, &capacity.to_le_bytes());
        Ok(placed)
    }

    /// Takes the extents that begin at `starts` out: reads of them fail from now on, and their files are
    /// closed as soon as no read is under way. The space is not used again.
    ///
    /// # Errors
    /// Nothing is released if one of them isn't there.
    pub fn release(&self, starts: &[u64]) -> Result<(), ReleaseError> {
        let map = self.map.as_ref().ok_or(ReleaseError::NotExtents)?;
        let mut current = map.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = current.release(starts).map_err(ReleaseError::Unknown)?;
        *current = Arc::new(rest);
        Ok(())
    }
}

/// Makes a disk. The guest can read `serial`, cut to 20 bytes, as the disk's serial number.
///
/// # Errors
/// See [`BlockError`].
pub fn new(wiring: Wiring, backing: Backing, serial: &str) -> Result<(Device, BlockHandle), BlockError> {
    let (source, capacity, read_only) = match backing {
        Backing::Extents(files) => {
            let (map, _) = ExtentMap::default().grow(files)?;
            let capacity = map.capacity();
            (Behind::Extents { map: Arc::new(Mutex::new(Arc::new(map))), read_only: true }, capacity, true)
        }
        Backing::Volumes => (Behind::Extents { map: Arc::default(), read_only: false }, 0, false),
        Backing::File { mut file, read_only } => {
            // Unlike its metadata, this also tells the size of a block device.
            let capacity = file.seek(SeekFrom::End(0))? / SECTOR;
            (Behind::File { file, capacity, read_only }, capacity, read_only)
        }
    };
    let access = if read_only { VIRTIO_BLK_F_RO } else { VIRTIO_BLK_F_FLUSH };
    let identity = Identity {
        device_id: VIRTIO_ID_BLOCK,
        features: 1 << VIRTIO_BLK_F_SEG_MAX | 1 << access,
        queue_sizes: &[QUEUE_SIZE],
    };
    let map = match &source {
        Behind::Extents { map, .. } => Some(Arc::clone(map)),
        Behind::File { .. } => None,
    };
    let serial = serial_number(serial);
    let disk = Disk { queue: None, source, serial };
    let mut handle = None;
    let device = transport::assemble(wiring, &identity, config_space(capacity), |shared, _| {
        handle = Some(BlockHandle { map, shared: Arc::clone(shared) });
        Ok(disk)
    })?;
    let handle = handle.ok_or_else(|| io::Error::other("the disk was not assembled"))?;
    Ok((device, handle))
}

fn config_space(capacity: u64) -> Vec<u8> {
    let mut config = vec![0; CONFIG_SIZE];
    let fields =
        [(CAPACITY_OFFSET, &capacity.to_le_bytes()[..]), (SEGMENTS_OFFSET, &MAX_SEGMENTS.to_le_bytes()[..])];
    for (offset, value) in fields {
        for (to, from) in config.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    }
    config
}

fn serial_number(text: &str) -> [u8; request::SERIAL_SIZE] {
    let mut serial = [0; request::SERIAL_SIZE];
    for (to, from) in serial.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    serial
}

enum Behind {
    Extents { map: Arc<Mutex<Arc<ExtentMap>>>, read_only: bool },
    File { file: File, capacity: u64, read_only: bool },
}

struct Disk {
    queue: Option<ActiveQueue>,
    source: Behind,
    serial: [u8; request::SERIAL_SIZE],
}

impl Backend for Disk {
    fn activate(&mut self, activation: Activation, _: Poller<'_>) -> Result<(), Fault> {
        self.queue = activation.queues.into_iter().next();
        Ok(())
    }

    fn run(&mut self, _: Poller<'_>) -> Result<Progress, Fault> {
        let Some(queue) = &mut self.queue else { return Ok(Progress::Idle) };
        let memory = queue.memory();
        queue.silence()?;
        for done in 1..=BUDGET {
            let Some(chain) = queue.pop(&memory)? else {
                queue.signal()?;
                if queue.ask_for_bell()? {
                    queue.silence()?;
                    continue;
                }
                return Ok(Progress::Idle);
            };
            let head = chain.head;
            // Looked at for each request: one that comes after a release must not find what was released.
            let map;
            let storage = match &self.source {
                Behind::Extents { map: current, read_only } => {
                    map = Arc::clone(&*current.lock().unwrap_or_else(PoisonError::into_inner));
                    Storage::Extents { map: &map, read_only: *read_only }
                }
                Behind::File { file, capacity, read_only } => {
                    Storage::File { file: file.as_fd(), capacity: *capacity, read_only: *read_only }
                }
            };
            let written = request::serve(chain, &storage, &self.serial)?;
            queue.push_used(head, written)?;
            if done.is_multiple_of(BATCH) {
                queue.signal()?;
            }
        }
        queue.signal()?;
        Ok(Progress::More)
    }

    fn deactivate(&mut self, _: Poller<'_>) {
        self.queue = None;
    }
}

#[cfg(test)]
mod tests;
