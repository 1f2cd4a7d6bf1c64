//! GetQuote: a guest's report becomes a quote, in a buffer that it shares with us (guest-hypervisor communication interface
//! 1.5, 348552, TDG.VP.VMCALL<GetQuote>).
//!
//! Linux in the guest looks at the buffer once a second. So the request is answered within the exit if the service is quick;
//! a slow one goes on by itself, and the CPU goes on, too.
//!
//! SECURITY: the guest chooses address, size and content, and changes them at any time. The report is copied before it is
//! used; what is written is decided by nothing that is read twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nacre_devices::SharedMemory;
use nacre_stage0_abi::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress};

use super::service::{QuoteSource, REPORT_LEN};
use crate::memory::GuestMemory;

/// What TDG.VP.VMCALL gives back.
pub const SUCCESS: u64 = 0;
/// The request makes no sense.
pub const INVALID_OPERAND: u64 = 0x8000_0000_0000_0000;
/// The buffer is not made of whole pages.
pub const ALIGN_ERROR: u64 = 0x8000_0000_0000_0002;

/// The buffer's status while the quote is made.
const IN_FLIGHT: u64 = u64::MAX;
const DONE: u64 = 0;
const ERROR: u64 = 0x8000_0000_0000_0000;
const UNAVAILABLE: u64 = 0x8000_0000_0000_0001;

const VERSION: u64 = 1;
const STATUS: u64 = 8;
const OUT_LEN: u64 = 20;
const DATA: u64 = 24;
/// As long as Linux's; nobody needs more.
const LONGEST_BUFFER: u64 = 128 << 10;

/// A service that answers in this time saves the guest a second.
const QUICK: Duration = Duration::from_millis(100);
/// Quotes that are made at the same time for one guest.
const MOST_IN_FLIGHT: usize = 4;

/// The requests of one guest.
pub struct Quotes {
    memory: Arc<GuestMemory>,
    shared: Arc<dyn SharedMemory>,
    source: Option<Arc<dyn QuoteSource>>,
    in_flight: AtomicUsize,
    log: slog::Logger,
}

impl fmt::Debug for Quotes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Quotes").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Quotes {
    /// Quotes that `source` makes; without it the guest hears that there is no service.
    pub fn new(
        memory: Arc<GuestMemory>,
        shared: Arc<dyn SharedMemory>,
        source: Option<Box<dyn QuoteSource>>,
        log: slog::Logger,
    ) -> Self {
        Self { memory, shared, source: source.map(Arc::from), in_flight: AtomicUsize::new(0), log }
    }

    /// Serves a request. What comes back is for the guest; the quote itself, or why there is none, is in the buffer then, or
    /// will be, when `done` is called.
    pub fn request(self: &Arc<Self>, gpa: u64, size: u64, done: impl FnOnce() + Send + 'static) -> u64 {
        if !gpa.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
            return ALIGN_ERROR;
        }
        let Some(report) = self.report(gpa, size) else { return INVALID_OPERAND };
        let Some(source) = self.source.clone().filter(|_| self.begins()) else {
            self.finish(gpa, UNAVAILABLE, &[]);
            done();
            return SUCCESS;
        };
        let (finished, quick) = channel();
        let quotes = Arc::clone(self);
        let make = move || {
            quotes.make(&*source, gpa, size, &report);
            quotes.in_flight.fetch_sub(1, Ordering::Relaxed);
            done();
            // Nobody waits if it took longer.
            let _ = finished.send(());
        };
        match thread::Builder::new().name("quote".to_owned()).spawn(make) {
            Ok(_) => {
                let _ = quick.recv_timeout(QUICK);
            }
            Err(_) => {
                self.in_flight.fetch_sub(1, Ordering::Relaxed);
                self.finish(gpa, UNAVAILABLE, &[]);
            }
        }
        SUCCESS
    }

    /// The report in a buffer that is as it should be, which is marked as being worked on.
    fn report(&self, gpa: u64, size: u64) -> Option<[u8; REPORT_LEN]> {
        let fits = (DATA + REPORT_LEN as u64..=LONGEST_BUFFER).contains(&size);
        if !fits || !self.shared.is_shared(gpa, size) {
            return None;
        }
        // All of it is memory.
        self.memory.read_obj::<u8>(GuestAddress(gpa.checked_add(size - 1)?)).ok()?;
        let mut head = [0; 24];
        self.memory.read_slice(&mut head, GuestAddress(gpa)).ok()?;
        let (version, rest) = head.split_first_chunk::<8>()?;
        let (_status, rest) = rest.split_first_chunk::<8>()?;
        let in_len = u32::from_le_bytes(*rest.first_chunk()?);
        if u64::from_le_bytes(*version) != VERSION || usize::try_from(in_len).ok() != Some(REPORT_LEN) {
            return None;
        }
        let mut report = [0; REPORT_LEN];
        self.memory.read_slice(&mut report, GuestAddress(gpa + DATA)).ok()?;
        self.write(gpa + OUT_LEN, &0u32.to_le_bytes());
        self.write(gpa + STATUS, &IN_FLIGHT.to_le_bytes());
        Some(report)
    }

    /// Counts another quote, unless too many are being made.
    fn begins(&self) -> bool {
        let more = |count| (count < MOST_IN_FLIGHT).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn make(&self, source: &dyn QuoteSource, gpa: u64, size: u64, report: &[u8; REPORT_LEN]) {
        match source.quote(report) {
            Ok(quote) if quote.len() as u64 <= size - DATA => self.finish(gpa, DONE, &quote),
            Ok(quote) => {
                slog::warn!(self.log, "the guest's buffer is too small for its quote"; "bytes" => quote.len());
                self.finish(gpa, ERROR, &[]);
            }
            Err(error) => {
                slog::warn!(self.log, "no quote"; "error" => crate::chain_text(&error));
                self.finish(gpa, if error.is_absence() { UNAVAILABLE } else { ERROR }, &[]);
            }
        }
    }

    /// The status is the last that is written: the guest waits for it.
    fn finish(&self, gpa: u64, status: u64, quote: &[u8]) {
        let len = u32::try_from(quote.len()).unwrap_or_default();
        // The guest may have taken the buffer back meanwhile: then this is lost, as it wanted.
        if !self.shared.is_shared(gpa, DATA + quote.len() as u64) {
            return;
        }
        self.write(gpa + DATA, quote);
        self.write(gpa + OUT_LEN, &len.to_le_bytes());
        std::sync::atomic::fence(Ordering::Release);
        self.write(gpa + STATUS, &status.to_le_bytes());
    }

    /// `report` has checked that there is memory.
    fn write(&self, address: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender};

    use rstest::rstest;
    use slog::{Discard, Logger, o};

    use super::super::service::ServiceError;
    use super::super::service::tests::{response, service};
    use super::*;
    use crate::memory;
    use crate::simulated::AllShared;

    const BUFFER: u64 = 0x1_0000;
    const SIZE: u64 = 0x4000;

    /// A service that answers when the test lets it.
    #[derive(Debug)]
    struct Slow(Mutex<Receiver<Vec<u8>>>);

    impl QuoteSource for Slow {
        fn quote(&self, _report: &[u8; REPORT_LEN]) -> Result<Vec<u8>, ServiceError> {
            Ok(self.0.lock().unwrap().recv().unwrap())
        }
    }

    /// Memory of which the second MiB is private.
    #[derive(Debug)]
    struct FirstMib;

    impl SharedMemory for FirstMib {
        fn is_shared(&self, address: u64, length: u64) -> bool {
            address + length <= 1 << 20
        }
    }

    fn quotes(source: Option<Box<dyn QuoteSource>>) -> Arc<Quotes> {
        let memory = Arc::new(memory::allocate(64).unwrap());
        memory.write_obj(1u64, GuestAddress(BUFFER)).unwrap();
        memory.write_obj(1024u32, GuestAddress(BUFFER + 16)).unwrap();
        memory.write_slice(&[7; REPORT_LEN], GuestAddress(BUFFER + DATA)).unwrap();
        Arc::new(Quotes::new(memory, Arc::new(FirstMib), source, Logger::root(Discard, o!())))
    }

    fn slow() -> (Arc<Quotes>, Sender<Vec<u8>>) {
        let (sender, receiver) = channel();
        (quotes(Some(Box::new(Slow(Mutex::new(receiver))))), sender)
    }

    fn status(quotes: &Quotes) -> (u64, u32) {
        let status = quotes.memory.read_obj(GuestAddress(BUFFER + STATUS)).unwrap();
        (status, quotes.memory.read_obj(GuestAddress(BUFFER + OUT_LEN)).unwrap())
    }

    #[test]
    fn a_quick_service_is_answered_within_the_exit() {
        let (source, thread, _folder) = service(|stream, request| {
            assert_eq!(request[28..], [7; REPORT_LEN]);
            let message = response(0, b"", b"a quote");
            stream.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&message).unwrap();
        });
        let quotes = quotes(Some(Box::new(source)));
        // In an emulated machine a thread may take longer to start than a quick service has: wait for the end as such.
        let (sender, receiver) = channel();
        assert_eq!(quotes.request(BUFFER, SIZE, move || sender.send(()).unwrap()), SUCCESS);
        receiver.recv().unwrap();
        assert_eq!(status(&quotes), (DONE, 7));
        let mut quote = [0; 7];
        quotes.memory.read_slice(&mut quote, GuestAddress(BUFFER + DATA)).unwrap();
        assert_eq!(&quote, b"a quote");
        thread.join().unwrap();
    }

    #[test]
    fn a_slow_service_does_not_stop_the_cpu_and_is_not_asked_without_end() {
        let (quotes, answer) = slow();
        let (sender, finished) = channel();
        let ask = || {
            let sender = sender.clone();
            quotes.request(BUFFER, SIZE, move || sender.send(()).unwrap())
        };
        for _ in 0..MOST_IN_FLIGHT {
            assert_eq!(ask(), SUCCESS);
            assert_eq!(status(&quotes), (IN_FLIGHT, 0));
        }
        assert_eq!(ask(), SUCCESS);
        finished.recv().unwrap();
        assert_eq!(status(&quotes), (UNAVAILABLE, 0));
        for _ in 0..MOST_IN_FLIGHT {
            answer.send(b"late".to_vec()).unwrap();
            finished.recv().unwrap();
        }
        assert_eq!(status(&quotes), (DONE, 4));
        answer.send(b"again".to_vec()).unwrap();
        assert_eq!(ask(), SUCCESS);
        finished.recv().unwrap();
        assert_eq!(status(&quotes), (DONE, 5));
    }

    #[rstest]
    #[case::unaligned(BUFFER + 8, SIZE, ALIGN_ERROR)]
    #[case::part_of_a_page(BUFFER, 2000, ALIGN_ERROR)]
    #[case::nothing(BUFFER, 0, INVALID_OPERAND)]
    #[case::huge(BUFFER, 132 << 10, INVALID_OPERAND)]
    #[case::private(1 << 20, SIZE, INVALID_OPERAND)]
    #[case::partly_private((1 << 20) - 0x1000, SIZE, INVALID_OPERAND)]
    #[case::no_header(0x2_0000, SIZE, INVALID_OPERAND)]
    fn a_bad_buffer_is_refused(#[case] gpa: u64, #[case] size: u64, #[case] answer: u64) {
        let (quotes, _answer) = slow();
        assert_eq!(quotes.request(gpa, size, || panic!("no quote was begun")), answer);
        assert_eq!(status(&quotes), (0, 0));
    }

    #[test]
    fn a_buffer_behind_the_end_of_memory_is_refused() {
        let (sender, receiver) = channel::<Vec<u8>>();
        let memory = Arc::new(memory::allocate(64).unwrap());
        let source: Box<dyn QuoteSource> = Box::new(Slow(Mutex::new(receiver)));
        let quotes =
            Arc::new(Quotes::new(memory, Arc::new(AllShared), Some(source), Logger::root(Discard, o!())));
        for gpa in [64 << 20, (64 << 20) - 0x1000, 0xd000_0000, u64::MAX - 0xfff] {
            assert_eq!(quotes.request(gpa, SIZE, || {}), INVALID_OPERAND);
        }
        drop(sender);
    }

    #[rstest]
    #[case::no_version(0, 0)]
    #[case::another_version(0, 2)]
    #[case::length(16, 1025)]
    #[case::no_length(16, 0)]
    fn a_bad_header_is_refused(#[case] offset: u64, #[case] value: u32) {
        let (quotes, _answer) = slow();
        quotes.memory.write_obj(value, GuestAddress(BUFFER + offset)).unwrap();
        assert_eq!(quotes.request(BUFFER, SIZE, || {}), INVALID_OPERAND);
    }

    #[test]
    fn without_a_service_and_with_a_dead_one_the_guest_hears_so() {
        let none = quotes(None);
        assert_eq!(none.request(BUFFER, SIZE, || {}), SUCCESS);
        assert_eq!(status(&none), (UNAVAILABLE, 0));

        let (source, thread, _folder) = service(|_, _| {});
        let dead = quotes(Some(Box::new(source)));
        let (sender, receiver) = channel();
        assert_eq!(dead.request(BUFFER, SIZE, move || sender.send(()).unwrap()), SUCCESS);
        receiver.recv().unwrap();
        assert_eq!(status(&dead), (UNAVAILABLE, 0));
        thread.join().unwrap();
    }

    #[test]
    fn a_quote_that_does_not_fit_is_an_error() {
        let (quotes, answer) = slow();
        let (sender, receiver) = channel();
        answer.send(vec![1; 0x4000]).unwrap();
        assert_eq!(quotes.request(BUFFER, SIZE, move || sender.send(()).unwrap()), SUCCESS);
        receiver.recv().unwrap();
        assert_eq!(status(&quotes), (ERROR, 0));
    }
}
