use vmm_sys_util::epoll::Epoll;

use super::*;

fn greeter() -> (Greeter, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    listener.set_nonblocking(true).unwrap();
    (Greeter::new(listener).unwrap(), folder)
}

fn connect(folder: &tempfile::TempDir) -> UnixStream {
    UnixStream::connect(folder.path().join("s")).unwrap()
}

#[test]
fn patience_ends_in_the_order_of_arrival_and_the_timer_runs_only_while_somebody_waits() {
    let (mut greeter, folder) = greeter();
    let epoll = Epoll::new().unwrap();
    let poller = Poller::for_test(&epoll);
    assert!(!greeter.timer.is_armed().unwrap());
    let _peers = [connect(&folder), connect(&folder)];
    assert!(greeter.accept(20, poller).unwrap() && greeter.accept(21, poller).unwrap());
    assert!(!greeter.accept(22, poller).unwrap());
    assert!(greeter.timer.is_armed().unwrap());
    assert!(greeter.expired(Instant::now()).is_empty());
    assert_eq!(greeter.expired(Instant::now() + PATIENCE), [20, 21]);
    greeter.done(20, poller);
    assert_eq!(greeter.expired(Instant::now() + PATIENCE), [21]);
    assert!(greeter.timer.is_armed().unwrap());
    greeter.done(21, poller);
    assert!(!greeter.timer.is_armed().unwrap());
}

#[test]
fn a_peer_with_its_stream_still_waits_for_the_guest() {
    let (mut greeter, folder) = greeter();
    let epoll = Epoll::new().unwrap();
    let poller = Poller::for_test(&epoll);
    let peer = connect(&folder);
    greeter.accept(20, poller).unwrap();
    assert!(matches!(greeter.read(20), Greeting::Incomplete));
    io::Write::write_all(&mut &peer, b"CONNECT 9\n").unwrap();
    assert!(matches!(greeter.read(20), Greeting::Port(_, 9)));
    assert!(!greeter.contains(20));
    assert_eq!(greeter.expired(Instant::now() + PATIENCE), [20]);
}

#[test]
fn more_peers_than_may_wait_stay_in_the_listeners_queue() {
    let (mut greeter, folder) = greeter();
    let epoll = Epoll::new().unwrap();
    let poller = Poller::for_test(&epoll);
    let _peers: Vec<_> = (0..MAX_WAITING + 1).map(|_| connect(&folder)).collect();
    for token in 20.. {
        if !greeter.accept(token, poller).unwrap() {
            break;
        }
    }
    assert_eq!(greeter.deadlines.len(), MAX_WAITING);
    greeter.done(20, poller);
    assert!(greeter.accept(1000, poller).unwrap());
}
