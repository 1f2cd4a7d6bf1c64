use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{Buffer, Driver, run, wiring};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(sink: Option<Box<dyn Write + Send>>) -> (Driver, ConsoleTail) {
    let (wiring, interrupt, memory) = wiring();
    let (device, tail) = new(wiring, sink).unwrap();
    let mut driver = run(device, interrupt, memory);
    driver.start(0);
    (driver, tail)
}

#[test]
fn output_reaches_the_sink_and_the_tail() {
    let sink = Sink::default();
    let (mut driver, tail) = start(Some(Box::new(sink.clone())));
    driver.call(OUTPUT, &[Buffer::Out(b"hello ".to_vec()), Buffer::Out(b"world\r\n".to_vec())]);
    assert_eq!(*sink.0.lock().unwrap(), b"hello world\r\n");
    assert_eq!(tail.text(), "hello world\n");
}

#[test]
fn a_flood_leaves_the_host_with_its_end_only() {
    let sink = Sink::default();
    let (mut driver, tail) = start(Some(Box::new(sink.clone())));
    for _ in 0..8 * 256 {
        driver.call(OUTPUT, &[Buffer::Out(vec![b'x'; 4096])]);
    }
    driver.call(OUTPUT, &[Buffer::Out(b"the end".to_vec())]);
    assert!(tail.text().ends_with("xxthe end"));
    assert_eq!(tail.text().len(), 4096);
    let kept = u64::try_from(sink.0.lock().unwrap().len()).unwrap();
    // What a slow machine takes for the test earns more.
    assert!(kept < 7 << 20, "{kept}");
}

#[test]
fn a_chain_that_is_too_long_is_cut_at_its_front() {
    let (mut driver, tail) = start(None);
    let mut text = vec![b'a'; 1 << 20];
    text.extend(b"end");
    driver.call(OUTPUT, &[Buffer::Out(text)]);
    assert!(tail.text().ends_with("aaend"));
}

#[test]
fn a_full_disk_does_not_stop_the_guest() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut driver, tail) = start(Some(Box::new(Full)));
    driver.call(OUTPUT, &[Buffer::Out(b"one".to_vec())]);
    driver.call(OUTPUT, &[Buffer::Out(b"two".to_vec())]);
    assert_eq!(tail.text(), "onetwo");
}

#[test]
fn what_is_not_printable_is_replaced() {
    let tail = ConsoleTail::default();
    tail.append(b"\x1b[31mred\x07 \xff\xfe \xe2\x82\xac\n");
    assert_eq!(tail.text(), "?[31mred? ?? \u{20ac}\n");
}

#[test]
fn the_allowance_refills_with_time() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    let burst = usize::try_from(BURST).unwrap();
    assert!(allowance.take(burst, start));
    assert!(!allowance.take(1, start));
    assert_eq!(allowance.dropped, 1);
    assert!(allowance.take(1000, start + Duration::from_millis(10)));
    assert!(!allowance.take(burst, start + Duration::from_secs(3600 * 24)) || allowance.tokens == 0);
}
