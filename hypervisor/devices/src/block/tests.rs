use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use rstest::rstest;

use super::*;
use crate::testing::{Buffer, Driver, register, run, wiring};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn start(backing: Backing) -> (Driver, BlockHandle) {
    let (wiring, interrupt, memory) = wiring();
    let (device, handle) = new(wiring, backing, "layers").unwrap();
    let mut driver = run(device, interrupt, memory);
    driver.start(0);
    (driver, handle)
}

fn header(kind: u32, sector: u64) -> Buffer {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    Buffer::Out(bytes)
}

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn read(driver: &mut Driver, sector: u64, length: u32) -> Vec<u8> {
    driver.call(0, &[header(IN, sector), Buffer::In(length), Buffer::In(1)])
}

fn capacity(driver: &Driver) -> u64 {
    let low = driver.read(register::CONFIG);
    u64::from(driver.read(register::CONFIG + 4)) << 32 | u64::from(low)
}

/// The status of a request whose other writable buffers stay as they are.
fn status(driver: &mut Driver, buffers: &[Buffer]) -> u8 {
    let head = driver.send(0, buffers);
    let status_at = driver.rings[0].last_writable(head);
    driver.wait_used(0);
    let mut status = [0];
    driver.rings[0].read(status_at, &mut status);
    status[0]
}

#[test]
fn extents_are_read_with_zeros_between_them() {
    let (mut driver, _) = start(Backing::Extents(vec![file(&[1; 600]), file(&[2; 4096])]));
    assert_eq!(capacity(&driver), 16);
    let bytes = read(&mut driver, 0, 8192);
    assert_eq!(bytes.len(), 8193);
    assert_eq!(bytes[..600], [1; 600]);
    assert_eq!(bytes[600..4096], [0; 3496]);
    assert_eq!(bytes[4096..8192], [2; 4096]);
    assert_eq!(bytes[8192], OK);
}

#[test]
fn boundaries_between_buffers_mean_nothing() {
    let (mut driver, _) = start(Backing::Extents(vec![file(&[3; 512]), file(&[4; 512])]));
    let mut first = 0u32.to_le_bytes().to_vec();
    first.extend([0; 3]);
    let chain =
        [Buffer::Out(first), Buffer::Out(vec![0; 9]), Buffer::In(1000), Buffer::In(3608), Buffer::In(1)];
    let bytes = driver.call(0, &chain);
    assert_eq!(bytes.len(), 4609);
    assert_eq!((bytes[511], bytes[512], bytes[4096], bytes[4607], bytes[4608]), (3, 0, 4, 4, OK));
}

#[test]
fn a_disk_grows_with_an_interrupt_and_releases() {
    let (mut driver, handle) = start(Backing::Extents(Vec::new()));
    assert_eq!(capacity(&driver), 0);
    let generation = driver.read(register::GENERATION);
    assert_eq!(handle.grow(vec![file(&[5; 4096])]).unwrap(), [(0, 8)]);
    assert_eq!(driver.wait_interrupt(), 2);
    assert_eq!(capacity(&driver), 8);
    assert_ne!(driver.read(register::GENERATION), generation);
    assert_eq!(read(&mut driver, 0, 512)[..512], [5; 512]);
    handle.grow(vec![file(&[6; 512])]).unwrap();
    handle.release(&[0]).unwrap();
    assert_eq!(status(&mut driver, &[header(IN, 0), Buffer::In(512), Buffer::In(1)]), FAILED);
    assert_eq!(read(&mut driver, 8, 512)[..512], [6; 512]);
    assert!(matches!(handle.release(&[0]), Err(ReleaseError::Unknown(0))));
}

#[test]
fn a_file_is_written_read_back_and_flushed() {
    let backing = tempfile::tempfile().unwrap();
    backing.set_len(1 << 20).unwrap();
    let mut kept = backing.try_clone().unwrap();
    let (mut driver, handle) = start(Backing::File { file: backing, read_only: false });
    let data: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let request = [header(OUT, 3), Buffer::Out(data.clone()), Buffer::In(1)];
    assert_eq!(driver.call(0, &request), [OK]);
    assert_eq!(driver.call(0, &[header(FLUSH, 0), Buffer::In(1)]), [OK]);
    let mut bytes = vec![0; 4096];
    kept.read_exact_at(&mut bytes, 3 * 512).unwrap();
    assert_eq!(bytes, data);
    assert_eq!(read(&mut driver, 3, 4096)[..4096], data);
    assert!(matches!(handle.grow(Vec::new()), Err(GrowError::NotExtents)));
    let _ = kept.read(&mut bytes).unwrap();
}

#[test]
fn the_serial_number_is_told() {
    let (mut driver, _) = start(Backing::Extents(Vec::new()));
    let bytes = driver.call(0, &[header(GET_ID, 0), Buffer::In(20), Buffer::In(1)]);
    assert_eq!(&bytes[..7], b"layers\0");
}

#[rstest]
#[case::beyond_the_end(IN, 8, 512, FAILED)]
#[case::across_the_end(IN, 7, 1024, FAILED)]
#[case::sector_overflow(IN, u64::MAX, 512, FAILED)]
#[case::byte_overflow(IN, u64::MAX / 512, 512, FAILED)]
#[case::part_of_a_sector(IN, 0, 100, FAILED)]
#[case::short_serial(GET_ID, 0, 19, FAILED)]
#[case::discard(11, 0, 16, UNSUPPORTED)]
#[case::scsi(2, 0, 16, UNSUPPORTED)]
#[case::unknown(u32::MAX, 0, 512, UNSUPPORTED)]
fn a_bad_request_fails_alone(
    #[case] kind: u32,
    #[case] sector: u64,
    #[case] length: u32,
    #[case] expected: u8,
) {
    let (mut driver, _) = start(Backing::Extents(vec![file(&[1; 4096])]));
    let request = [header(kind, sector), Buffer::In(length), Buffer::In(1)];
    assert_eq!(status(&mut driver, &request), expected);
    assert_eq!(read(&mut driver, 0, 512)[512], OK);
}

#[rstest]
#[case::extents(Backing::Extents(vec![file(&[1; 4096])]))]
#[case::file(Backing::File { file: file(&[1; 4096]), read_only: true })]
fn a_read_only_disk_is_not_written(#[case] backing: Backing) {
    let (mut driver, _) = start(backing);
    assert_eq!(driver.call(0, &[header(OUT, 0), Buffer::Out(vec![9; 512]), Buffer::In(1)]), [FAILED]);
    assert_eq!(read(&mut driver, 0, 512)[..512], [1; 512]);
}

#[rstest]
#[case::no_status(vec![header(IN, 0)])]
#[case::no_header(vec![Buffer::In(512)])]
#[case::short_header(vec![Buffer::Out(vec![0; 15]), Buffer::In(513)])]
#[case::empty_status(vec![header(IN, 0), Buffer::In(0)])]
fn a_request_that_can_not_be_answered_stops_the_device(#[case] request: Vec<Buffer>) {
    let (mut driver, _) = start(Backing::Extents(vec![file(&[1; 4096])]));
    driver.send(0, &request);
    driver.wait_needs_reset();
    driver.start(0);
    assert_eq!(read(&mut driver, 0, 512)[512], OK);
}

#[test]
fn a_file_that_shrank_fails_the_read() {
    let backing = file(&[1; 8192]);
    let shrinking = backing.try_clone().unwrap();
    let (mut driver, _) = start(Backing::Extents(vec![backing]));
    shrinking.set_len(4096).unwrap();
    assert_eq!(status(&mut driver, &[header(IN, 0), Buffer::In(8192), Buffer::In(1)]), FAILED);
}

#[test]
fn a_full_queue_of_requests_is_served_with_few_interrupts_and_survives_a_reset() {
    let (mut driver, _) = start(Backing::Extents(vec![file(&[1; 1 << 16])]));
    for _ in 0..42 {
        driver.rings[0].add(&[header(IN, 0), Buffer::In(1 << 16), Buffer::In(1)]);
    }
    driver.ring_bell(0);
    driver.write(register::STATUS, 0);
    driver.start(0);
    for _ in 0..42 {
        driver.rings[0].add(&[header(IN, 0), Buffer::In(512), Buffer::In(1)]);
    }
    driver.ring_bell(0);
    for _ in 0..42 {
        assert_eq!(driver.wait_used(0).1[512], OK);
    }
}

/// A request to write, which has only a status to be answered with.
fn write_status(driver: &mut Driver, sector: u64, bytes: Vec<u8>) -> u8 {
    status(driver, &[header(OUT, sector), Buffer::Out(bytes), Buffer::In(1)])
}

#[test]
fn volumes_come_later_and_are_written_as_they_were_opened() {
    let (mut driver, handle) = start(Backing::Volumes);
    assert_eq!(capacity(&driver), 0);
    let writable = file(&[1; 4096]);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), [2; 4096]).unwrap();
    let read_only = File::open(path.path()).unwrap();
    let placed = handle.grow(vec![writable.try_clone().unwrap(), read_only]).unwrap();
    assert_eq!(placed, [(0, 8), (8, 8)]);

    assert_eq!(write_status(&mut driver, 1, vec![9; 512]), OK);
    assert_eq!(status(&mut driver, &[header(FLUSH, 0), Buffer::In(1)]), OK);
    let mut bytes = [0; 4096];
    writable.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[511], bytes[512], bytes[1023], bytes[1024]), (1, 9, 9, 1));
    assert_eq!(write_status(&mut driver, 8, vec![9; 512]), FAILED);
    assert_eq!(std::fs::read(path.path()).unwrap(), [2; 4096]);
    // Not across the border between two volumes, and not where one was released.
    assert_eq!(write_status(&mut driver, 7, vec![9; 1024]), FAILED);
    handle.release(&[0]).unwrap();
    assert_eq!(write_status(&mut driver, 1, vec![7; 512]), FAILED);
    writable.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[512], 9);
}
