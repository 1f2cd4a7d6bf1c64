use proptest::prelude::*;
use rstest::rstest;

use super::*;

const WINDOW: u32 = 1 << 16;
const PORTS: Ports = Ports { guest: 1024, host: 1 << 30 };

fn packet(operation: Operation, flags: u32, length: u32) -> Header {
    Header {
        source_cid: 3,
        destination_cid: HOST_CID,
        source_port: PORTS.guest,
        destination_port: PORTS.host,
        length,
        kind: TYPE_STREAM,
        operation: Some(operation),
        flags,
        buffer: 1 << 18,
        forwarded: 0,
    }
}

fn established() -> Connection {
    let mut connection = Connection::from_guest(WINDOW, &packet(Operation::Request, 0, 0));
    assert_eq!(connection.next(false), Some(Outgoing::Control(Operation::Response, 0)));
    connection
}

#[test]
fn a_connection_of_the_host_waits_for_the_guest() {
    let mut connection = Connection::from_host(WINDOW);
    assert_eq!(connection.next(true), Some(Outgoing::Control(Operation::Request, 0)));
    assert_eq!(connection.next(true), None);
    assert_eq!(connection.packet(&packet(Operation::Response, 0, 0)), Reaction::Accepted);
    assert_eq!(connection.next(true), Some(Outgoing::Data(1 << 18)));
}

#[test]
fn an_answer_before_the_question_is_a_violation() {
    let mut connection = Connection::from_host(WINDOW);
    assert_eq!(connection.packet(&packet(Operation::Response, 0, 0)), Reaction::Violation);
}

#[rstest]
#[case::request_again(Operation::Request, 0, 0, Reaction::Violation)]
#[case::response_again(Operation::Response, 0, 0, Reaction::Violation)]
#[case::reset(Operation::Reset, 0, 0, Reaction::Gone)]
#[case::data(Operation::Data, 0, 100, Reaction::Deliver)]
#[case::data_beyond_the_window(Operation::Data, 0, WINDOW + 1, Reaction::Violation)]
#[case::no_more_sending(Operation::Shutdown, SHUTDOWN_SEND, 0, Reaction::Shutdown)]
#[case::no_more_reading(Operation::Shutdown, SHUTDOWN_RECEIVE, 0, Reaction::Shutdown)]
#[case::nothing_shut(Operation::Shutdown, 0, 0, Reaction::Shutdown)]
#[case::unknown_flags(Operation::Shutdown, !3, 0, Reaction::Shutdown)]
#[case::all_shut(Operation::Shutdown, u32::MAX, 0, Reaction::Finished)]
fn an_established_connection_reacts(
    #[case] operation: Operation,
    #[case] flags: u32,
    #[case] length: u32,
    #[case] expected: Reaction,
) {
    assert_eq!(established().packet(&packet(operation, flags, length)), expected);
}

#[test]
fn shutting_one_direction_after_the_other_finishes() {
    let mut connection = established();
    connection.packet(&packet(Operation::Shutdown, SHUTDOWN_SEND, 0));
    assert!(connection.guest_receives() && !connection.guest_sends());
    assert_eq!(connection.next(true), Some(Outgoing::Data(1 << 18)));
    assert_eq!(connection.packet(&packet(Operation::Data, 0, 1)), Reaction::Violation);
    assert_eq!(connection.packet(&packet(Operation::Shutdown, SHUTDOWN_RECEIVE, 0)), Reaction::Finished);
}

#[test]
fn the_end_of_the_hosts_data_shuts_one_direction_only() {
    let mut connection = established();
    connection.host_finished();
    let told = Outgoing::Control(Operation::Shutdown, SHUTDOWN_SEND);
    assert_eq!(connection.next(false), Some(told));
    assert_eq!(connection.next(false), None);
    assert_eq!(connection.packet(&packet(Operation::Data, 0, 10)), Reaction::Deliver);
    connection.host_stopped_reading();
    let told = Outgoing::Control(Operation::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    assert_eq!(connection.next(false), Some(told));
    assert_eq!(connection.packet(&packet(Operation::Data, 0, 10)), Reaction::Discard);
}

#[test]
fn without_credit_the_guest_is_asked_once() {
    let mut connection = established();
    connection.header(3, PORTS, Operation::Data, 0, 1 << 18);
    assert_eq!(connection.next(true), Some(Outgoing::Control(Operation::CreditRequest, 0)));
    assert_eq!(connection.next(true), None);
    let mut update = packet(Operation::CreditUpdate, 0, 0);
    update.forwarded = 5;
    assert_eq!(connection.packet(&update), Reaction::None);
    assert_eq!(connection.next(true), Some(Outgoing::Data(5)));
}

#[test]
fn a_request_for_credit_is_answered() {
    let mut connection = established();
    connection.packet(&packet(Operation::CreditRequest, 0, 0));
    assert_eq!(connection.next(false), Some(Outgoing::Control(Operation::CreditUpdate, 0)));
    let header = connection.header(3, PORTS, Operation::CreditUpdate, 0, 0);
    assert_eq!((header.buffer, header.forwarded), (WINDOW, 0));
    assert_eq!(connection.next(false), None);
}

#[derive(Debug, Clone)]
enum Step {
    Packet(Operation, u32, u32, u32, u32),
    Delivered(u32),
    HostFinished,
    HostStoppedReading,
    Next(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(vec![
        Operation::Response,
        Operation::Shutdown,
        Operation::Data,
        Operation::CreditUpdate,
        Operation::CreditRequest,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (operation(), any::<u32>(), 0..WINDOW * 2, any::<u32>(), any::<u32>())
            .prop_map(|(o, f, l, b, w)| Step::Packet(o, f, l, b, w)),
        3 => any::<u32>().prop_map(Step::Delivered),
        1 => Just(Step::HostFinished),
        1 => Just(Step::HostStoppedReading),
        6 => any::<bool>().prop_map(Step::Next),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_confuses_a_connection(
        from_host in any::<bool>(),
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut connection = if from_host {
            Connection::from_host(WINDOW)
        } else {
            Connection::from_guest(WINDOW, &packet(Operation::Request, 0, 0))
        };
        for step in steps {
            match step {
                Step::Packet(operation, flags, length, buffer, forwarded) => {
                    let header = Header { buffer, forwarded, ..packet(operation, flags, length) };
                    match connection.packet(&header) {
                        Reaction::Gone | Reaction::Violation | Reaction::Finished => break,
                        Reaction::Deliver => prop_assert!(length <= WINDOW),
                        _ => {}
                    }
                }
                Step::Delivered(count) => connection.delivered(count),
                Step::HostFinished => connection.host_finished(),
                Step::HostStoppedReading => connection.host_stopped_reading(),
                Step::Next(readable) => if let Some(Outgoing::Data(limit)) = connection.next(readable) {
                    prop_assert!(limit > 0);
                    connection.header(3, PORTS, Operation::Data, 0, limit.min(1000));
                },
            }
        }
        // What is due is said in a few packets, then there is silence: no loop without an event.
        for _ in 0..5 {
            match connection.next(false) {
                Some(Outgoing::Control(operation, flags)) => {
                    connection.header(3, PORTS, operation, flags, 0);
                }
                Some(Outgoing::Data(_)) => prop_assert!(false, "data of a host that has none"),
                None => {}
            }
        }
        prop_assert_eq!(connection.next(false), None);
    }
}
