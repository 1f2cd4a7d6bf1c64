//! One block request (virtio 1.2, 5.2.6).

use std::io;
use std::os::fd::BorrowedFd;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use super::SECTOR;
use super::extents::{ExtentMap, Piece};
use crate::chain::{Buffers, Chain, Transfer};
use crate::fault::GuestFault;

/// The size of a serial number.
pub(super) const SERIAL_SIZE: usize = 20;
/// The size of a request's header.
const HEADER_SIZE: usize = 16;

/// Where requests go.
pub(super) enum Storage<'a> {
    Extents {
        map: &'a ExtentMap,
        read_only: bool,
    },
    File {
        file: BorrowedFd<'a>,
        /// In sectors.
        capacity: u64,
        read_only: bool,
    },
}

/// Why a request failed: what its status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Failed,
    Unsupported,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

/// Serves one request and returns how many bytes of the chain were written.
///
/// # Errors
/// A chain without a whole header or without a status, which can't be answered.
pub(super) fn serve(
    mut chain: Chain<'_>,
    storage: &Storage<'_>,
    serial: &[u8; SERIAL_SIZE],
) -> Result<usize, GuestFault> {
    let mut header = [0; HEADER_SIZE];
    chain.readable.read(&mut header)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let sector = u64::from_le_bytes(sector);
    let Some(room) = chain.writable.len().checked_sub(1) else {
        return Err(GuestFault::ShortChain { available: 0, needed: 1 });
    };
    let mut data = chain.writable.split_to(room)?;
    let outcome = match kind {
        VIRTIO_BLK_T_IN => read(storage, sector, &mut data),
        VIRTIO_BLK_T_OUT => write(storage, sector, &mut chain.readable),
        VIRTIO_BLK_T_FLUSH => flush(storage),
        VIRTIO_BLK_T_GET_ID if room >= SERIAL_SIZE => data.write(serial).map_err(|_| Refusal::Failed),
        VIRTIO_BLK_T_GET_ID => Err(Refusal::Failed),
        _ => Err(Refusal::Unsupported),
    };
    let status = match outcome {
        Ok(()) => VIRTIO_BLK_S_OK,
        Err(Refusal::Failed) => VIRTIO_BLK_S_IOERR,
        Err(Refusal::Unsupported) => VIRTIO_BLK_S_UNSUPP,
    };
    chain.writable.write(&[u8::try_from(status).unwrap_or(u8::MAX)])?;
    // The status is the last byte: a driver may only rely on what is before it if all of it was written.
    Ok(if data.is_empty() { room + 1 } else { 0 })
}

fn read(storage: &Storage<'_>, sector: u64, data: &mut Buffers<'_>) -> Result<(), Refusal> {
    let sectors = whole_sectors(data.len())?;
    match storage {
        Storage::File { file, capacity, .. } => {
            let offset = position(sector, sectors, *capacity)?;
            let length = data.len();
            transfer_all(data, *file, offset, length, Transfer::ReadAt)
        }
        Storage::Extents { map, .. } => {
            let offset = position(sector, sectors, map.capacity())?;
            let mut at = offset;
            while !data.is_empty() {
                let wanted = u64::try_from(data.len()).map_err(|_| Refusal::Failed)?;
                let piece = map.piece(at, wanted).ok_or(Refusal::Failed)?;
                let length = match piece {
                    Piece::Data { length, .. } | Piece::Zeros { length } => length,
                };
                let count = usize::try_from(length).map_err(|_| Refusal::Failed)?;
                match piece {
                    Piece::Data { file, offset, .. } => {
                        transfer_all(data, file, offset, count, Transfer::ReadAt)?;
                    }
                    Piece::Zeros { .. } => data.write_zeros(count).map_err(|_| Refusal::Failed)?,
                }
                at = at.checked_add(length).ok_or(Refusal::Failed)?;
            }
            Ok(())
        }
    }
}

fn write(storage: &Storage<'_>, sector: u64, data: &mut Buffers<'_>) -> Result<(), Refusal> {
    let sectors = whole_sectors(data.len())?;
    // SECURITY: what is read-only is so here, whatever the driver makes of the feature bit.
    match storage {
        Storage::File { read_only: true, .. } | Storage::Extents { read_only: true, .. } => {
            Err(Refusal::Failed)
        }
        Storage::File { file, capacity, .. } => {
            let offset = position(sector, sectors, *capacity)?;
            let length = data.len();
            transfer_all(data, *file, offset, length, Transfer::WriteAt)
        }
        Storage::Extents { map, .. } => {
            let offset = position(sector, sectors, map.capacity())?;
            // A volume is a partition of its own: a request that leaves it is nobody's.
            let wanted = u64::try_from(data.len()).map_err(|_| Refusal::Failed)?;
            let Some(Piece::Data { file, offset, length }) = map.piece(offset, wanted) else {
                return Err(Refusal::Failed);
            };
            if length < wanted {
                return Err(Refusal::Failed);
            }
            // The kernel refuses this for a file that is open for reading only.
            let length = data.len();
            transfer_all(data, file, offset, length, Transfer::WriteAt)
        }
    }
}

fn flush(storage: &Storage<'_>) -> Result<(), Refusal> {
    match storage {
        Storage::File { file, read_only: false, .. } => {
            nix::unistd::fdatasync(file).map_err(|_| Refusal::Failed)
        }
        Storage::Extents { map, read_only: false } => {
            map.files().try_for_each(|file| nix::unistd::fdatasync(file).map_err(|_| Refusal::Failed))
        }
        // Nothing can be unwritten.
        Storage::File { .. } | Storage::Extents { .. } => Ok(()),
    }
}

fn whole_sectors(length: usize) -> Result<u64, Refusal> {
    let length = u64::try_from(length).map_err(|_| Refusal::Failed)?;
    if length.is_multiple_of(SECTOR) { Ok(length / SECTOR) } else { Err(Refusal::Failed) }
}

/// The offset in bytes of `count` sectors that are all on the disk.
fn position(sector: u64, count: u64, capacity: u64) -> Result<u64, Refusal> {
    let end = sector.checked_add(count).ok_or(Refusal::Failed)?;
    if end > capacity {
        return Err(Refusal::Failed);
    }
    sector.checked_mul(SECTOR).ok_or(Refusal::Failed)
}

/// Moves exactly the first `length` bytes of `data`.
fn transfer_all(
    data: &mut Buffers<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    length: usize,
    how: fn(u64) -> Transfer,
) -> Result<(), Refusal> {
    let mut at = offset;
    let mut left = length;
    while left > 0 {
        let moved = match data.transfer(file, how(at), left) {
            // The file is shorter than it was.
            Ok(0) => return Err(Refusal::Failed),
            Ok(moved) => moved,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        left = left.checked_sub(moved).ok_or(Refusal::Failed)?;
        at = at.saturating_add(u64::try_from(moved).map_err(|_| Refusal::Failed)?);
    }
    Ok(())
}
