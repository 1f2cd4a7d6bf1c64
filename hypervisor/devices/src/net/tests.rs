mod real_tap;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::testing::{Buffer, Driver, register, run, wiring};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const MTU: u16 = 1500;
const NO_MERGING: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const NO_SEGMENTS: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6;

/// A device on one end of a pair of sockets that keep frames apart, as a tap does.
fn start(without: u64) -> (Driver, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (wiring, interrupt, memory) = wiring();
    let mut driver = run(over_socket(wiring, File::from(OwnedFd::from(theirs))), interrupt, memory);
    driver.start(without);
    (driver, ours)
}

fn frame(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

/// A frame with a header that asks for nothing.
fn plain(length: usize) -> Vec<u8> {
    [vec![0; header::SIZE], frame(length)].concat()
}

fn give_buffers(driver: &mut Driver, count: usize, length: u32) {
    for _ in 0..count {
        driver.rings[RECEIVE].add(&[Buffer::In(length)]);
    }
    driver.ring_bell(RECEIVE);
}

/// A frame as a driver puts it together from the chains that the first one counts.
fn receive(driver: &mut Driver) -> Vec<u8> {
    let (_, mut bytes) = driver.wait_used(RECEIVE);
    let chains = u16::from_le_bytes([bytes[10], bytes[11]]);
    for _ in 1..chains {
        // All of a frame is visible at once.
        bytes.extend(driver.rings[RECEIVE].take_used().unwrap().1);
    }
    bytes.split_off(header::SIZE)
}

#[test]
fn the_configuration_tells_address_and_mtu() {
    let (driver, _) = start(0);
    let mut config = [0; 12];
    for (offset, byte) in (register::CONFIG..).zip(config.chunks_mut(1)) {
        driver.mmio.read(offset, byte);
    }
    assert_eq!(config[..6], [2, 0, 0, 0, 0, 1]);
    assert_eq!(u16::from_le_bytes([config[10], config[11]]), MTU);
}

#[rstest]
#[case::one_buffer(vec![Buffer::Out(plain(100))])]
#[case::header_apart(vec![Buffer::Out(vec![0; 12]), Buffer::Out(frame(100))])]
#[case::byte_by_byte(plain(100).into_iter().map(|byte| Buffer::Out(vec![byte])).collect())]
fn a_frame_of_the_guest_reaches_the_tap(#[case] chain: Vec<Buffer>) {
    let (mut driver, tap) = start(0);
    driver.call(TRANSMIT, &chain);
    let mut received = [0; 2000];
    let length = tap.recv(&mut received).unwrap();
    assert_eq!(received[..length], plain(100));
}

#[rstest]
#[case::header_only(plain(0))]
#[case::less_than_ethernet(plain(13))]
#[case::more_than_a_segment(plain(65550))]
#[case::unknown_segmentation([vec![1, 5], vec![0; 10], frame(100)].concat())]
#[case::datagram_segmentation([vec![1, 3], vec![0; 10], frame(100)].concat())]
#[case::segments_without_checksum([vec![0, 1], vec![0; 10], frame(100)].concat())]
#[case::congestion_flag([vec![1, 0x81], vec![0; 10], frame(100)].concat())]
#[case::flag_of_the_device([vec![2, 0], vec![0; 10], frame(100)].concat())]
fn a_frame_that_may_not_be_sent_is_lost(#[case] bytes: Vec<u8>) {
    let (mut driver, tap) = start(0);
    driver.call(TRANSMIT, &[Buffer::Out(bytes)]);
    driver.call(TRANSMIT, &[Buffer::Out(plain(60))]);
    assert_eq!(tap.recv(&mut [0; 70_000]).unwrap(), 72);
}

#[test]
fn what_was_not_agreed_on_may_not_be_asked_for() {
    let checksum = [vec![1, 0], vec![0; 10], frame(100)].concat();
    let (mut driver, tap) = start(1 << VIRTIO_NET_F_CSUM);
    driver.call(TRANSMIT, &[Buffer::Out(checksum)]);
    driver.call(TRANSMIT, &[Buffer::Out(plain(60))]);
    assert_eq!(tap.recv(&mut [0; 2000]).unwrap(), 72);
}

#[test]
fn a_frame_without_a_whole_header_stops_the_device() {
    let (mut driver, _tap) = start(0);
    driver.send(TRANSMIT, &[Buffer::Out(vec![0; 11])]);
    driver.wait_needs_reset();
    driver.start(0);
}

#[test]
fn a_full_tap_holds_frames_back_and_loses_none() {
    let (mut driver, tap) = start(0);
    for _ in 0..100 {
        driver.rings[TRANSMIT].add(&[Buffer::Out(plain(60_000))]);
        driver.ring_bell(TRANSMIT);
    }
    for _ in 0..100 {
        assert_eq!(tap.recv(&mut [0; 70_000]).unwrap(), 60_012);
    }
    for _ in 0..100 {
        driver.wait_used(TRANSMIT);
    }
}

#[rstest]
#[case::merged(0)]
#[case::merged_without_segments(NO_SEGMENTS)]
#[case::single(NO_MERGING | NO_SEGMENTS)]
fn a_frame_of_the_tap_reaches_the_guest(#[case] without: u64) {
    let (mut driver, tap) = start(without);
    give_buffers(&mut driver, 100, 1536);
    for length in [60, 1000, 1514] {
        tap.send(&plain(length)).unwrap();
        assert_eq!(receive(&mut driver), frame(length));
    }
}

#[test]
fn a_large_segment_is_spread_over_small_buffers() {
    let (mut driver, tap) = start(0);
    give_buffers(&mut driver, 256, 1500);
    for length in [65_549, 14, 1488, 1489] {
        tap.send(&plain(length)).unwrap();
        assert_eq!(receive(&mut driver), frame(length));
    }
}

#[test]
fn a_large_segment_fits_one_large_buffer_without_merging() {
    let (mut driver, tap) = start(NO_MERGING);
    give_buffers(&mut driver, 2, 65_562);
    tap.send(&plain(65_549)).unwrap();
    assert_eq!(receive(&mut driver), frame(65_549));
}

/// CVE-2020-16843: the ring is full when frames come, and nothing else comes after the refill.
#[rstest]
#[case::merged(0)]
#[case::single(NO_MERGING | NO_SEGMENTS)]
fn frames_that_waited_for_buffers_arrive_after_the_refill(#[case] without: u64) {
    let (mut driver, tap) = start(without);
    for _ in 0..3 {
        for _ in 0..5 {
            tap.send(&plain(60)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        give_buffers(&mut driver, 50, 1536);
        for _ in 0..5 {
            assert_eq!(receive(&mut driver), frame(60));
        }
        // Use the rest up, so that the next round begins with an empty ring.
        while let Some(left) =
            driver.rings[RECEIVE].available_index().checked_sub(driver.rings[RECEIVE].used_index())
        {
            if left == 0 || without == 0 {
                break;
            }
            tap.send(&plain(60)).unwrap();
            receive(&mut driver);
        }
    }
}

#[test]
fn a_receive_buffer_that_is_too_small_for_a_header_stops_the_device() {
    let (mut driver, tap) = start(NO_MERGING);
    give_buffers(&mut driver, 1, 11);
    tap.send(&plain(60)).unwrap();
    driver.wait_needs_reset();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn frames_of_any_length_arrive_in_order(
        lengths in prop::collection::vec(14usize..65_549, 1..10),
        buffer in 700u32..5000,
    ) {
        let (mut driver, tap) = start(0);
        for length in lengths {
            give_buffers(&mut driver, 100, buffer);
            tap.send(&plain(length)).unwrap();
            prop_assert_eq!(receive(&mut driver), frame(length));
            if driver.rings[RECEIVE].available_index() > 150 {
                break;
            }
        }
    }
}
