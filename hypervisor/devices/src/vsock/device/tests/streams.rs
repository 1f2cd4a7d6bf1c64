use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rstest::rstest;

use super::guest::{BUFFER, Guest, READY_PORT, TRANSMIT, read_line};
use crate::testing::{Buffer, register};
use crate::vsock::Event;
use crate::vsock::packet::{Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

const BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

fn pattern(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

#[test]
fn the_guest_connects_to_an_allowed_port_and_both_sides_talk() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    guest.data(5000, READY_PORT, b"ready");
    let mut bytes = [0; 5];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ready");
    host.write_all(b"go").unwrap();
    let (header, payload) = guest.receive();
    assert_eq!((header.operation, payload.as_slice()), (Some(Operation::Data), &b"go"[..]));
    assert_eq!((header.source_port, header.destination_port), (READY_PORT, 5000));
}

#[test]
fn the_first_packet_is_told_once() {
    let mut guest = Guest::start();
    guest.send(Guest::header(Operation::Request, 1, 9));
    guest.send(Guest::header(Operation::Request, 1, 9));
    guest.expect(Operation::Reset);
    assert!(matches!(guest.events.recv().unwrap(), Event::FirstPacket));
    assert!(guest.events.try_recv().is_err());
}

#[test]
fn the_host_connects_and_both_sides_talk() {
    let mut guest = Guest::start();
    let (mut host, port) = guest.connect_from_host(1027);
    host.write_all(b"in").unwrap();
    assert_eq!(guest.receive().1, b"in");
    guest.data(1027, port, b"out");
    let mut bytes = [0; 3];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"out");
}

#[test]
fn each_stream_of_the_host_has_a_port_of_its_own() {
    let mut guest = Guest::start();
    let (_first, first_port) = guest.connect_from_host(1027);
    let (_second, second_port) = guest.connect_from_host(1027);
    assert_ne!(first_port, second_port);
}

#[test]
fn the_peers_line_may_come_in_pieces_and_with_data_behind_it() {
    let mut guest = Guest::start();
    let mut host = guest.host();
    for part in ["CONN", "ECT 10", "27\nhel", "lo"] {
        host.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let request = guest.expect(Operation::Request);
    guest.send(Guest::header(Operation::Response, 1027, request.source_port));
    assert!(read_line(&host).starts_with("OK "));
    assert_eq!(guest.receive().1, b"hello");
}

#[test]
fn a_peer_is_closed_when_the_guest_does_not_listen() {
    let mut guest = Guest::start();
    let mut host = guest.host();
    host.write_all(b"CONNECT 7\n").unwrap();
    let request = guest.expect(Operation::Request);
    guest.send(Guest::header(Operation::Reset, 7, request.source_port));
    assert_eq!(host.read(&mut [0; 8]).unwrap(), 0);
}

#[rstest]
#[case::nonsense(b"GET / HTTP/1.0\r\n")]
#[case::endless(&[b'C'; 100])]
#[case::nothing(b"")]
fn a_peer_that_does_not_say_where_it_goes_is_closed(#[case] bytes: &[u8]) {
    let mut guest = Guest::start();
    let mut host = guest.host();
    // The device may close before everything is written.
    let _ = host.write_all(bytes);
    if bytes.is_empty() {
        host.shutdown(Shutdown::Write).unwrap();
    }
    match host.read(&mut [0; 8]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    guest.connect_from_host(1);
}

#[test]
fn the_host_may_finish_sending_and_go_on_reading() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    host.write_all(b"last").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive().1, b"last");
    assert_eq!(guest.expect(Operation::Shutdown).flags, SHUTDOWN_SEND);
    guest.data(5000, READY_PORT, b"answer");
    guest.shutdown(5000, READY_PORT, BOTH);
    guest.expect(Operation::Reset);
    let mut text = String::new();
    host.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
}

#[test]
fn the_guest_may_finish_sending_and_go_on_reading() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    guest.data(5000, READY_PORT, b"question");
    guest.shutdown(5000, READY_PORT, SHUTDOWN_SEND);
    let mut text = String::new();
    host.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    host.write_all(b"answer").unwrap();
    assert_eq!(guest.receive().1, b"answer");
}

#[test]
fn a_host_that_is_gone_ends_both_directions() {
    let mut guest = Guest::start();
    drop(guest.connect_to_host(5000));
    let mut told = 0;
    while told != BOTH {
        told = guest.expect(Operation::Shutdown).flags;
    }
    guest.data(5000, READY_PORT, b"into the void");
    guest.shutdown(5000, READY_PORT, BOTH);
    guest.expect(Operation::Reset);
    guest.connect_to_host(5000);
}

#[test]
fn what_the_guest_sent_before_it_closed_is_delivered_to_a_slow_reader() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    let sent = pattern(1 << 20);
    for portion in sent.chunks(64 << 10) {
        guest.data(5000, READY_PORT, portion);
    }
    guest.shutdown(5000, READY_PORT, BOTH);
    let mut operations = Vec::new();
    while operations.last() != Some(&Operation::Reset) {
        operations.push(guest.receive().0.operation.unwrap());
    }
    // The ports are free at once, and the old stream is still being written.
    let mut again = guest.connect_to_host(5000);
    guest.data(5000, READY_PORT, b"new");
    let mut received = Vec::new();
    host.read_to_end(&mut received).unwrap();
    assert!(received == sent);
    let mut bytes = [0; 3];
    again.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"new");
}

#[test]
fn the_end_is_clean_even_if_the_guest_left_data_unread() {
    let mut guest = Guest::without_buffers();
    guest.add_buffer();
    guest.driver.ring_bell(0);
    let mut host = guest.connect_to_host(5000);
    host.write_all(&pattern(100_000)).unwrap();
    guest.data(5000, READY_PORT, b"bye");
    guest.shutdown(5000, READY_PORT, BOTH);
    let mut text = String::new();
    host.read_to_string(&mut text).unwrap();
    assert_eq!(text, "bye");
}

#[test]
fn a_reader_that_stops_stalls_its_stream_only() {
    let mut guest = Guest::start();
    let stalled = guest.connect_to_host(5000);
    let mut other = guest.connect_to_host(5001);
    for _ in 0..16 {
        guest.data(5000, READY_PORT, &pattern(64 << 10));
    }
    guest.data(5001, READY_PORT, b"alive");
    let mut bytes = [0; 5];
    other.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"alive");
    drop(stalled);
}

#[test]
fn much_data_to_the_host_arrives_whole_with_credit_for_it() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    let total = 64 << 20;
    let sent = pattern(total);
    let expected = sent.clone();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        host.read_to_end(&mut received).unwrap();
        assert!(received == expected);
    });
    let (mut told, mut at) = (0u32, 0);
    while at < total {
        let free = BUFFER - u32::try_from(at).unwrap().wrapping_sub(told);
        let part = usize::try_from(free).unwrap().min(64 << 10).min(total - at);
        if part == 0 {
            told = guest.expect(Operation::CreditUpdate).forwarded;
            continue;
        }
        guest.data(5000, READY_PORT, &sent[at..at + part]);
        at += part;
    }
    guest.shutdown(5000, READY_PORT, SHUTDOWN_SEND);
    reader.join().unwrap();
}

#[test]
fn much_data_to_the_guest_arrives_whole_within_its_credit() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    let total = 16 << 20;
    let sent = pattern(total);
    let expected = sent.clone();
    let writer = std::thread::spawn(move || host.write_all(&sent).unwrap());
    let mut received = Vec::with_capacity(total);
    let mut told = 0;
    while received.len() < total {
        let (header, payload) = guest.receive();
        if header.operation == Some(Operation::Shutdown) && header.flags & SHUTDOWN_SEND != 0 {
            break;
        }
        received.extend(payload);
        let count = u32::try_from(received.len()).unwrap();
        assert!(count.wrapping_sub(told) <= BUFFER);
        if count.wrapping_sub(told) >= BUFFER / 2 || header.operation == Some(Operation::CreditRequest) {
            told = count;
            let update = Guest::header(Operation::CreditUpdate, 5000, READY_PORT);
            guest.send(Header { forwarded: told, ..update });
        }
    }
    writer.join().unwrap();
    assert!(received == expected);
}

#[test]
fn data_waits_for_the_guests_buffers_and_goes_on_with_their_bell() {
    let mut guest = Guest::without_buffers();
    guest.add_buffer();
    guest.driver.ring_bell(0);
    let mut host = guest.connect_to_host(5000);
    host.write_all(&pattern(20_000)).unwrap();
    let mut received = Vec::new();
    while received.len() < 20_000 {
        received.extend(guest.receive().1);
    }
    assert!(received == pattern(20_000));
}

#[test]
fn header_and_payload_may_be_cut_anywhere() {
    let mut guest = Guest::start();
    let mut host = guest.connect_to_host(5000);
    let payload = pattern(300);
    let header = Header { length: 300, ..Guest::header(Operation::Data, 5000, READY_PORT) };
    let mut bytes = header.to_bytes();
    bytes.extend(&payload);
    let parts = [&bytes[..7], &bytes[7..60], &[], &bytes[60..]];
    let chain: Vec<_> = parts.iter().map(|part| Buffer::Out(part.to_vec())).collect();
    guest.driver.call(TRANSMIT, &chain);
    let mut received = vec![0; 300];
    host.read_exact(&mut received).unwrap();
    assert_eq!(received, payload);
}

#[test]
fn a_reset_of_the_device_closes_all_streams_and_it_starts_again() {
    let mut guest = Guest::start();
    let mut first = guest.connect_to_host(5000);
    let (mut second, _) = guest.connect_from_host(1027);
    guest.driver.write(register::STATUS, 0);
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    guest.driver.start(0);
    for _ in 0..100 {
        guest.add_buffer();
    }
    guest.driver.ring_bell(0);
    guest.connect_to_host(5000);
}

#[test]
fn a_peer_that_came_before_the_driver_is_served_when_it_is_there() {
    let mut guest = Guest::start();
    guest.driver.write(register::STATUS, 0);
    let mut host = guest.host();
    host.write_all(b"CONNECT 1\n").unwrap();
    guest.driver.start(0);
    guest.add_buffer();
    guest.driver.ring_bell(0);
    guest.expect(Operation::Request);
}
