use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::testing::{BUFFERS, Buffer, Driver, run, wiring};
use crate::{SharedMemory, rng};

fn start() -> Driver {
    let (wiring, interrupt, memory) = wiring();
    let mut driver = run(rng::new(wiring).unwrap(), interrupt, memory);
    driver.start(0);
    driver
}

#[test]
fn a_request_is_filled_with_entropy() {
    let mut driver = start();
    let first = driver.call(0, &[Buffer::In(64)]);
    let second = driver.call(0, &[Buffer::In(32), Buffer::In(32)]);
    assert_eq!((first.len(), second.len()), (64, 64));
    assert_ne!(first, second);
    assert_ne!(first, [0; 64]);
}

#[test]
fn a_huge_request_gets_a_bounded_answer() {
    let mut driver = start();
    assert_eq!(driver.call(0, &[Buffer::In(1 << 20)]).len(), 4096);
}

#[test]
fn more_requests_than_the_queue_has_places_all_come_back() {
    let mut driver = start();
    for _ in 0..100_000 / 16 {
        for _ in 0..16 {
            driver.rings[0].add(&[Buffer::In(8)]);
        }
        driver.ring_bell(0);
        for _ in 0..16 {
            assert_eq!(driver.wait_used(0).1.len(), 8);
        }
    }
}

#[test]
fn a_request_without_room_comes_back_empty() {
    let mut driver = start();
    assert!(driver.call(0, &[Buffer::Out(vec![1])]).is_empty());
}

/// Memory of which the part from an address on is private.
#[derive(Debug)]
struct PrivateFrom(AtomicU64);

impl SharedMemory for PrivateFrom {
    fn is_shared(&self, address: u64, length: u64) -> bool {
        address + length <= self.0.load(Ordering::Relaxed)
    }
}

fn confidential() -> (Driver, Arc<PrivateFrom>) {
    let (mut wiring, interrupt, memory) = wiring();
    let shared = Arc::new(PrivateFrom(AtomicU64::new(u64::MAX)));
    wiring.confidential = Some(shared.clone());
    (run(rng::new(wiring).unwrap(), interrupt, memory), shared)
}

#[test]
fn a_confidential_guests_driver_must_take_the_feature_that_makes_it_share_its_buffers() {
    const ACCESS_PLATFORM: u64 = 1 << 33;
    let (driver, _) = confidential();
    assert_eq!(driver.offered() & ACCESS_PLATFORM, ACCESS_PLATFORM);
    driver.negotiate(driver.offered() & !ACCESS_PLATFORM);
    assert_eq!(driver.status() & 8, 0);
    driver.negotiate(driver.offered());
    assert_eq!(driver.status() & 8, 8);
    assert_eq!(start().offered() & ACCESS_PLATFORM, 0);
}

#[test]
fn a_ring_that_becomes_private_ends_the_device_until_its_reset() {
    let (mut driver, shared) = confidential();
    driver.start(0);
    assert_eq!(driver.call(0, &[Buffer::In(64)]).len(), 64);
    shared.0.store(driver.rings[0].used, Ordering::Relaxed);
    driver.rings[0].add(&[Buffer::In(64)]);
    driver.ring_bell(0);
    driver.wait_needs_reset();
    shared.0.store(u64::MAX, Ordering::Relaxed);
    driver.start(0);
    assert_eq!(driver.call(0, &[Buffer::In(64)]).len(), 64);
}

#[test]
fn a_buffer_in_private_memory_is_not_touched() {
    let (mut driver, shared) = confidential();
    driver.start(0);
    // Behind the rings.
    shared.0.store(BUFFERS, Ordering::Relaxed);
    driver.rings[0].add(&[Buffer::In(64)]);
    driver.ring_bell(0);
    driver.wait_needs_reset();
    assert!(driver.rings[0].take_used().is_none());
}

#[test]
fn a_queue_in_private_memory_can_not_be_started() {
    let (mut driver, shared) = confidential();
    shared.0.store(0, Ordering::Relaxed);
    driver.negotiate(driver.offered());
    driver.set_up_queues();
    driver.finish();
    driver.wait_needs_reset();
}
