use crate::rng;
use crate::testing::{Buffer, Driver, run, wiring};

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
