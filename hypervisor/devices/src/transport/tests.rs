use rstest::rstest;

use crate::testing::{Buffer, Driver, NEEDS_RESET, RINGS, register, run, wiring};
use crate::{GuestFault, rng};

const VERSION_1: u64 = 1 << 32;

fn driver() -> Driver {
    let (wiring, interrupt, memory) = wiring();
    run(rng::new(wiring).unwrap(), interrupt, memory)
}

#[test]
fn the_window_begins_with_what_identifies_it() {
    let driver = driver();
    assert_eq!(driver.read(0), u32::from_le_bytes(*b"virt"));
    assert_eq!(driver.read(4), 2);
    assert_eq!(driver.read(8), 4);
    assert_eq!(driver.read(register::QUEUE_MAX), 16);
    assert_eq!(driver.offered(), VERSION_1 | 1 << 28 | 1 << 29);
    assert_eq!((driver.read(0xb0), driver.read(0xb4)), (u32::MAX, u32::MAX));
}

#[rstest]
#[case::one_byte(0, 1)]
#[case::half_a_word(0, 2)]
#[case::two_words(0, 8)]
#[case::between_words(2, 4)]
#[case::write_only(0x38, 4)]
#[case::gap(0xe0, 4)]
#[case::config_beyond_its_end(0x100, 8)]
#[case::far_beyond(0xffc, 4)]
#[case::no_offset(u64::MAX, 4)]
#[case::nothing(0, 0)]
fn reads_of_what_is_not_there_give_zeros(#[case] offset: u64, #[case] width: usize) {
    let driver = driver();
    let mut data = vec![0xff; width];
    driver.mmio.read(offset, &mut data);
    assert_eq!(data, vec![0; width]);
}

#[test]
fn writes_of_odd_widths_and_offsets_change_nothing() {
    let mut driver = driver();
    driver.start(0);
    for offset in (0..0x1000).chain([u64::MAX - 1, u64::MAX, 1 << 32 | register::STATUS]) {
        for width in [0, 1, 2, 3, 8, 16] {
            driver.mmio.write(offset, &vec![0; width]);
        }
        if offset != register::STATUS {
            driver.mmio.write(offset, &[0xff; 4]);
        }
    }
    assert_eq!(driver.call(0, &[Buffer::In(8)]).len(), 8);
}

#[rstest]
#[case::not_offered(VERSION_1 | 1)]
#[case::not_offered_high(VERSION_1 | 1 << 63)]
#[case::legacy(1 << 29)]
#[case::none(0)]
fn features_that_do_not_fit_are_not_accepted(#[case] features: u64) {
    let mut driver = driver();
    driver.negotiate(features);
    assert_eq!(driver.status(), 3);
    driver.set_up_queues();
    driver.finish();
    assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET);
    driver.start(0);
}

#[test]
fn a_page_of_features_that_does_not_exist_can_not_be_agreed_on() {
    let driver = driver();
    driver.write(register::DEVICE_FEATURES_PAGE, 2);
    assert_eq!(driver.read(register::DEVICE_FEATURES), 0);
    driver.negotiate(VERSION_1);
    driver.write(register::STATUS, 0);
    driver.write(register::STATUS, 3);
    driver.write(register::DRIVER_FEATURES_PAGE, 1);
    driver.write(register::DRIVER_FEATURES, 1);
    driver.write(register::DRIVER_FEATURES_PAGE, 2);
    driver.write(register::DRIVER_FEATURES, 1);
    driver.write(register::STATUS, 11);
    assert_eq!(driver.status(), 3);
}

#[test]
fn starting_without_agreed_features_asks_for_a_reset() {
    let driver = driver();
    driver.write(register::STATUS, 3);
    driver.write(register::STATUS, 7);
    assert_eq!(driver.status(), 3 | NEEDS_RESET);
    driver.write(register::STATUS, 0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn bits_of_the_status_are_not_taken_back_nor_invented() {
    let driver = driver();
    driver.write(register::STATUS, 3);
    driver.write(register::STATUS, 1);
    driver.write(register::STATUS, 3 | 16);
    driver.write(register::STATUS, 3 | NEEDS_RESET);
    assert_eq!(driver.status(), 3);
    driver.write(register::STATUS, 3 | 128);
    assert_eq!(driver.status(), 3 | 128);
}

type Change = fn(&Driver);

#[rstest]
#[case::size_zero(|driver: &Driver| driver.write(register::QUEUE_SIZE, 0))]
#[case::size_no_power_of_two(|driver: &Driver| driver.write(register::QUEUE_SIZE, 7))]
#[case::size_above_the_maximum(|driver: &Driver| driver.write(register::QUEUE_SIZE, 32))]
#[case::size_that_wraps(|driver: &Driver| driver.write(register::QUEUE_SIZE, 0x1_0008))]
#[case::not_ready(|driver: &Driver| driver.write(register::QUEUE_READY, 0))]
#[case::ready_by_another_value(|driver: &Driver| driver.write(register::QUEUE_READY, 2))]
#[case::descriptors_not_aligned(|driver: &Driver| driver.write_address(register::DESCRIPTORS, RINGS + 8))]
#[case::available_not_aligned(|driver: &Driver| driver.write_address(register::AVAILABLE, RINGS + 0x4001))]
#[case::used_not_aligned(|driver: &Driver| driver.write_address(register::USED, RINGS + 0x8002))]
#[case::outside_memory(|driver: &Driver| driver.write_address(register::DESCRIPTORS, 0xd000_0000))]
#[case::across_the_end_of_memory(|driver: &Driver| driver.write_address(register::USED, (32 << 20) - 64))]
#[case::wrapping(|driver: &Driver| driver.write_address(register::DESCRIPTORS, u64::MAX - 15))]
#[case::the_same_place(|driver: &Driver| driver.write_address(register::USED, RINGS))]
#[case::overlapping(|driver: &Driver| driver.write_address(register::AVAILABLE, RINGS + 0xfe))]
fn a_queue_that_can_not_work_asks_for_a_reset(#[case] change: Change) {
    let mut driver = driver();
    driver.negotiate(driver.offered());
    driver.set_up_queues();
    driver.write(register::QUEUE_SELECT, 0);
    change(&driver);
    driver.finish();
    assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(driver.wait_interrupt(), 2);
    driver.start(0);
    assert_eq!(driver.call(0, &[Buffer::In(8)]).len(), 8);
}

/// CVE-2026-5747.
#[rstest]
#[case::size(|driver: &Driver| driver.write(register::QUEUE_SIZE, 1))]
#[case::ready(|driver: &Driver| driver.write(register::QUEUE_READY, 0))]
#[case::ready_toggled(|driver: &Driver| {
    driver.write(register::QUEUE_READY, 0);
    driver.write(register::QUEUE_READY, 1);
})]
#[case::descriptors(|driver: &Driver| driver.write_address(register::DESCRIPTORS, 0x10_0000))]
#[case::available(|driver: &Driver| driver.write_address(register::AVAILABLE, 0xffff_ffff_ffff_fff0))]
#[case::used(|driver: &Driver| driver.write_address(register::USED, 0))]
#[case::features(|driver: &Driver| driver.write(register::DRIVER_FEATURES, 0))]
#[case::queue_that_is_not_there(|driver: &Driver| {
    driver.write(register::QUEUE_SELECT, u32::MAX);
    driver.write(register::QUEUE_SIZE, 3);
    driver.write(register::NOTIFY, u32::MAX);
})]
fn registers_are_inert_while_the_device_runs(#[case] change: Change) {
    let mut driver = driver();
    driver.start(0);
    driver.write(register::QUEUE_SELECT, 0);
    driver.call(0, &[Buffer::In(8)]);
    change(&driver);
    for _ in 0..40 {
        assert_eq!(driver.call(0, &[Buffer::In(8)]).len(), 8);
    }
}

#[test]
fn a_storm_of_resets_leaves_a_device_that_works() {
    let mut driver = driver();
    for _ in 0..500 {
        driver.start(0);
        for _ in 0..16 {
            driver.rings[0].add(&[Buffer::In(4096)]);
        }
        driver.ring_bell(0);
        driver.write(register::STATUS, 0);
        assert_eq!(driver.status(), 0);
        assert_eq!(driver.read(register::INTERRUPT_STATUS), 0);
    }
    driver.start(0);
    assert_eq!(driver.call(0, &[Buffer::In(8)]).len(), 8);
}

#[test]
fn nothing_is_written_to_memory_after_a_reset() {
    let mut driver = driver();
    for _ in 0..200 {
        driver.start(0);
        for _ in 0..16 {
            driver.rings[0].add(&[Buffer::In(4096)]);
        }
        driver.ring_bell(0);
        driver.write(register::STATUS, 0);
        let used: Vec<u8> = driver.rings[0].used_ring();
        std::thread::yield_now();
        assert_eq!(driver.rings[0].used_ring(), used);
    }
}

#[test]
fn a_bell_of_a_device_that_does_not_run_is_harmless() {
    let mut driver = driver();
    driver.ring_bell(0);
    driver.start(0);
    assert_eq!(driver.call(0, &[Buffer::In(8)]).len(), 8);
}

#[test]
fn chains_that_are_there_before_the_start_are_served_without_a_bell() {
    let mut driver = driver();
    driver.negotiate(driver.offered());
    driver.set_up_queues();
    driver.rings[0].add(&[Buffer::In(8)]);
    driver.finish();
    assert_eq!(driver.wait_used(0).1.len(), 8);
}

#[test]
fn faults_say_what_is_wrong() {
    let fault = GuestFault::ShortChain { available: 1, needed: 16 };
    assert_eq!(
        fault.to_string(),
        "a descriptor chain of 1 bytes is shorter than the 16 that its request needs"
    );
}
