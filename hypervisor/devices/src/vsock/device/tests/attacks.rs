use std::io::{Read, Write};

use rstest::rstest;

use super::guest::{Guest, READY_PORT, RECEIVE, TRANSMIT};
use crate::testing::Buffer;
use crate::vsock::packet::{Header, Operation};
use crate::vsock::table::MAX_STREAMS;

fn request() -> Header {
    Guest::header(Operation::Request, 5000, READY_PORT)
}

#[rstest]
#[case::port_that_is_not_allowed(Header { destination_port: 1025, ..request() })]
#[case::port_zero(Header { destination_port: 0, ..request() })]
#[case::port_any(Header { destination_port: u32::MAX, ..request() })]
#[case::another_type(Header { kind: 2, ..request() })]
#[case::unknown_operation(Header { operation: None, ..request() })]
#[case::another_machine(Header { destination_cid: 4, ..request() })]
#[case::local(Header { destination_cid: 1, ..request() })]
#[case::high_half_of_the_address(Header { destination_cid: 2 | 1 << 32, ..request() })]
#[case::stream_that_is_not_there(Guest::header(Operation::Data, 5000, READY_PORT))]
#[case::answer_to_nothing(Guest::header(Operation::Response, 5000, 1 << 30))]
fn a_packet_that_has_no_place_is_refused(#[case] header: Header) {
    let mut guest = Guest::start();
    guest.send(header);
    let reset = guest.expect(Operation::Reset);
    assert_eq!(reset.destination_port, header.source_port);
    assert_eq!(reset.source_port, header.destination_port);
    guest.connect_to_host(6000);
}

#[rstest]
#[case::from_another_address(Header { source_cid: 4, ..request() })]
#[case::from_the_host(Header { source_cid: 2, ..request() })]
#[case::reset_of_nothing(Guest::header(Operation::Reset, 5000, READY_PORT))]
fn a_packet_that_is_nobodys_is_ignored(#[case] header: Header) {
    let mut guest = Guest::start();
    guest.send(header);
    assert!(guest.is_silent());
    guest.connect_to_host(6000);
}

#[rstest]
#[case::length_beyond_the_chain(Header { length: 1, ..request() })]
#[case::largest_length(Header { length: u32::MAX, ..request() })]
fn a_length_that_is_not_there_stops_the_device(#[case] header: Header) {
    let mut guest = Guest::start();
    guest.post(header, &[]);
    guest.driver.wait_needs_reset();
}

#[rstest]
#[case::empty(0)]
#[case::short(43)]
fn a_chain_without_a_header_stops_the_device(#[case] length: usize) {
    let mut guest = Guest::start();
    guest.driver.send(TRANSMIT, &[Buffer::Out(vec![0; length])]);
    guest.driver.wait_needs_reset();
}

#[test]
fn a_receive_buffer_without_room_for_a_header_stops_the_device() {
    let mut guest = Guest::without_buffers();
    guest.driver.send(RECEIVE, &[Buffer::In(43)]);
    guest.post(Guest::header(Operation::Request, 5000, 7), &[]);
    guest.driver.wait_needs_reset();
}

#[test]
fn a_guest_that_sends_beyond_its_window_loses_the_stream_and_the_host_keeps_what_was_allowed() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    let mut sent = 0;
    let portion = vec![1; 64 << 10];
    // Nobody reads: the socket takes a part, the window the rest.
    let mut reset = false;
    while !reset && sent < 100 {
        guest.data(5000, READY_PORT, &portion);
        sent += 1;
        while let Some((_, bytes)) = guest.driver.rings[RECEIVE].take_used() {
            let header = Header::parse(bytes[..44].try_into().unwrap());
            reset |= header.operation == Some(Operation::Reset);
        }
    }
    assert!(reset, "{sent}");
    let mut received = Vec::new();
    host.read_to_end(&mut received).unwrap();
    assert!(received.len() <= sent * portion.len());
    assert!(received.len() >= 1 << 20);
}

#[test]
fn a_flood_of_requests_gets_no_more_streams_than_allowed() {
    let mut guest = Guest::start();
    let mut refused = 0;
    for port in 0..600 {
        guest.send(Guest::header(Operation::Request, port, READY_PORT));
        let (header, _) = guest.receive();
        refused += usize::from(header.operation == Some(Operation::Reset));
    }
    assert_eq!(refused, 600 - MAX_STREAMS);
    // A closed one makes room.
    guest.shutdown(0, READY_PORT, 3);
    while guest.receive().0.operation != Some(Operation::Reset) {}
    guest.send(Guest::header(Operation::Request, 700, READY_PORT));
    guest.expect(Operation::Response);
}

#[test]
fn refusals_that_the_guest_does_not_take_stop_its_packets_and_nothing_else() {
    let mut guest = Guest::without_buffers();
    for port in 0..100 {
        guest.post(Guest::header(Operation::Request, port, 7), &[]);
    }
    let mut done = 0;
    std::thread::sleep(std::time::Duration::from_millis(100));
    while guest.driver.rings[TRANSMIT].take_used().is_some() {
        done += 1;
    }
    assert_eq!(done, 64);
    for _ in 0..128 {
        guest.add_buffer();
    }
    guest.driver.ring_bell(RECEIVE);
    for _ in 0..100 {
        guest.expect(Operation::Reset);
    }
    guest.connect_to_host(5000);
}

#[test]
fn credit_that_shrinks_and_lies_does_not_confuse_the_device() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    host.write_all(&[1; 8192]).unwrap();
    let mut received = 0;
    while received < 8192 {
        received += guest.receive().1.len();
    }
    for (buffer, forwarded) in [(1, 0), (0, 0), (u32::MAX, 1 << 31), (100, u32::MAX), (8191, 0)] {
        let update = Guest::header(Operation::CreditUpdate, 5000, READY_PORT);
        guest.send(Header { buffer, forwarded, ..update });
    }
    while !guest.is_silent() {}
    host.write_all(b"held back").unwrap();
    assert_eq!(guest.expect(Operation::CreditRequest).length, 0);
    assert!(guest.is_silent());
    let update = Guest::header(Operation::CreditUpdate, 5000, READY_PORT);
    guest.send(Header { buffer: 8196, forwarded: 0, ..update });
    assert_eq!(guest.receive().1, b"held");
}

#[test]
fn a_guest_that_never_reads_stalls_the_host_not_the_device() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    host.set_nonblocking(true).unwrap();
    let mut taken = 0;
    for _ in 0..100 {
        while let Ok(count) = host.write(&[0; 65536]) {
            taken += count;
        }
        if guest.is_silent() {
            break;
        }
    }
    assert!(taken < 2 << 20, "{taken}");
    guest.connect_to_host(5001);
}

#[test]
fn silent_peers_of_the_host_leave_room_for_the_guest() {
    let mut guest = Guest::start();
    let silent: Vec<_> = (0..200).map(|_| guest.host()).collect();
    let _kept = guest.connect_to_host(5000);
    drop(silent);
    guest.connect_from_host(1027);
}
