//! Rings and chains as a hostile driver makes them, against a whole device.

use rstest::rstest;

use crate::block::{self, Backing};
use crate::testing::{Buffer, Driver, MEMORY, flags, register, run, wiring};

const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;

fn driver(without: u64) -> Driver {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let (wiring, interrupt, memory) = wiring();
    let (device, _) = block::new(wiring, Backing::Extents(vec![file]), "").unwrap();
    let mut driver = run(device, interrupt, memory);
    driver.start(without);
    driver
}

fn read_request() -> [Buffer; 3] {
    [Buffer::Out(vec![0; 16]), Buffer::In(512), Buffer::In(1)]
}

fn works(driver: &mut Driver) {
    assert_eq!(driver.call(0, &read_request()).len(), 513);
}

type Attack = fn(&mut Driver);

/// Writes descriptors from 0 on and makes the chain of the first available.
fn publish(driver: &mut Driver, descriptors: &[(u64, u32, u16, u16)]) {
    let ring = &mut driver.rings[0];
    for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
        ring.write_descriptor(index, *address, *length, *flags, *next);
    }
    ring.publish(0);
    driver.ring_bell(0);
}

const SPACE: u64 = 8 << 20;
/// A table of descriptors outside the ring.
const TABLE: u64 = 9 << 20;

#[rstest]
#[case::index_far_ahead(|driver: &mut Driver| {
    let ring = &mut driver.rings[0];
    ring.set_available_index(ring.available_index().wrapping_add(129));
    driver.ring_bell(0);
})]
#[case::index_backwards(|driver: &mut Driver| {
    let ring = &mut driver.rings[0];
    ring.set_available_index(ring.available_index().wrapping_sub(1));
    driver.ring_bell(0);
})]
#[case::head_beyond_the_ring(|driver: &mut Driver| {
    driver.rings[0].publish(128);
    driver.ring_bell(0);
})]
#[case::largest_head(|driver: &mut Driver| {
    driver.rings[0].publish(u16::MAX);
    driver.ring_bell(0);
})]
#[case::next_beyond_the_ring(|driver: &mut Driver| publish(driver, &[(SPACE, 16, flags::NEXT, 128)]))]
#[case::chain_to_itself(|driver: &mut Driver| publish(driver, &[(SPACE, 16, flags::NEXT, 0)]))]
#[case::loop_of_two(|driver: &mut Driver| publish(driver, &[(SPACE, 16, flags::NEXT, 1), (SPACE, 16, flags::NEXT, 0)]))]
#[case::loop_of_empty_buffers(|driver: &mut Driver| publish(driver, &[(SPACE, 0, flags::NEXT, 0)]))]
#[case::readable_behind_writable(|driver: &mut Driver| publish(driver, &[
    (SPACE, 512, flags::WRITE | flags::NEXT, 1), (SPACE, 16, flags::NEXT, 2), (SPACE, 1, flags::WRITE, 0),
]))]
#[case::readable_behind_empty_writable(|driver: &mut Driver| publish(driver, &[
    (SPACE, 0, flags::WRITE | flags::NEXT, 1), (SPACE, 16, flags::NEXT, 2), (SPACE, 1, flags::WRITE, 0),
]))]
#[case::buffer_outside_memory(|driver: &mut Driver| publish(driver, &[(MEMORY, 16, 0, 0)]))]
#[case::buffer_across_the_end(|driver: &mut Driver| publish(driver, &[(MEMORY - 8, 16, 0, 0)]))]
#[case::buffer_that_wraps(|driver: &mut Driver| publish(driver, &[(u64::MAX - 7, 16, 0, 0)]))]
#[case::four_gibibytes(|driver: &mut Driver| publish(driver, &[(SPACE, u32::MAX, 0, 0)]))]
#[case::sum_overflow(|driver: &mut Driver| publish(driver, &[
    (SPACE, 1 << 20, flags::NEXT, 1), (SPACE, u32::MAX, flags::WRITE, 0),
]))]
#[case::nothing_at_all(|driver: &mut Driver| publish(driver, &[(SPACE, 0, 0, 0)]))]
#[case::indirect_of_no_length(|driver: &mut Driver| publish(driver, &[(TABLE, 0, flags::INDIRECT, 0)]))]
#[case::indirect_of_odd_length(|driver: &mut Driver| publish(driver, &[(TABLE, 17, flags::INDIRECT, 0)]))]
#[case::indirect_outside_memory(|driver: &mut Driver| publish(driver, &[(MEMORY, 32, flags::INDIRECT, 0)]))]
#[case::indirect_that_wraps(|driver: &mut Driver| publish(driver, &[(u64::MAX - 15, 32, flags::INDIRECT, 0)]))]
#[case::indirect_too_long(|driver: &mut Driver| publish(driver, &[(TABLE, 16 << 16, flags::INDIRECT, 0)]))]
#[case::indirect_in_indirect(|driver: &mut Driver| {
    driver.rings[0].write_descriptor_at(TABLE, TABLE, 16, flags::INDIRECT, 0);
    publish(driver, &[(TABLE, 16, flags::INDIRECT, 0)]);
})]
#[case::indirect_loop(|driver: &mut Driver| {
    driver.rings[0].write_descriptor_at(TABLE, SPACE, 1, flags::NEXT, 0);
    publish(driver, &[(TABLE, 16, flags::INDIRECT, 0)]);
})]
#[case::thousands_of_buffers(|driver: &mut Driver| {
    for index in 0..2000u16 {
        let ring = &driver.rings[0];
        let last = if index == 1999 { 0 } else { flags::NEXT };
        ring.write_descriptor_at(TABLE + 16 * u64::from(index), SPACE, 1, last, index + 1);
    }
    publish(driver, &[(TABLE, 16 * 2000, flags::INDIRECT, 0)]);
})]
fn a_broken_ring_or_chain_stops_the_device_until_a_reset(#[case] attack: Attack) {
    let mut driver = driver(0);
    works(&mut driver);
    attack(&mut driver);
    driver.wait_needs_reset();
    // Nothing more is served, and a reset makes it all good.
    driver.ring_bell(0);
    driver.start(0);
    works(&mut driver);
}

#[test]
fn an_indirect_chain_is_served() {
    let mut driver = driver(0);
    let ring = &driver.rings[0];
    ring.write_descriptor_at(TABLE, SPACE, 16, flags::NEXT, 2);
    ring.write_descriptor_at(TABLE + 32, SPACE + 4096, 513, flags::WRITE, 0);
    publish(&mut driver, &[(TABLE, 48, flags::INDIRECT, 0)]);
    driver.wait_used(0);
    let mut status = [9];
    driver.rings[0].read(SPACE + 4096 + 512, &mut status);
    assert_eq!(status, [0]);
}

#[rstest]
#[case::all_features(0)]
#[case::no_event_index(EVENT_IDX)]
#[case::plain(EVENT_IDX | INDIRECT)]
fn rings_go_round_with_any_features(#[case] without: u64) {
    let mut driver = driver(without);
    for _ in 0..70_000 / 42 {
        for _ in 0..42 {
            driver.rings[0].add(&read_request());
        }
        driver.ring_bell(0);
        for _ in 0..42 {
            assert_eq!(driver.wait_used(0).1.len(), 513);
        }
    }
}

/// Each interrupt and each bell is several exits of the guest.
#[test]
fn a_batch_of_chains_is_one_bell_and_few_interrupts() {
    let mut driver = driver(0);
    works(&mut driver);
    while driver.is_interrupted() {
        driver.wait_interrupt();
    }
    for _ in 0..42 {
        driver.rings[0].add(&read_request());
    }
    // Asks to be told of the next chain only, which is the first of the batch.
    assert!(driver.rings[0].take_used().is_none());
    driver.ring_bell(0);
    driver.wait_interrupt();
    assert!(!driver.is_interrupted());
    for _ in 0..42 {
        driver.wait_used(0);
    }
}

#[test]
fn a_driver_without_event_index_can_switch_interrupts_off() {
    let mut driver = driver(EVENT_IDX);
    driver.rings[0].set_available_flags(1);
    driver.rings[0].add(&read_request());
    driver.ring_bell(0);
    assert!(!driver.is_interrupted());
    assert_eq!(driver.read(register::INTERRUPT_STATUS), 0);
    assert!(driver.rings[0].take_used().is_some());
}
