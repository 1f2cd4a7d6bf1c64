//! What a trust domain asks of its VMM: the exits that only TDX has.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::abi::{CALL_INFO, Exit, GET_QUOTE, SETUP_EVENT_NOTIFY};
use super::quote::{INVALID_OPERAND, Quotes, SUCCESS};

/// GetTdVmCallInfo's bit in R11 for SetupEventNotifyInterrupt.
const SERVES_EVENT_NOTIFY: u64 = 1 << 1;
/// The first vector that is not an exception's.
const FIRST_VECTOR: u64 = 32;

/// Sends an interrupt to a CPU: its number, and the vector.
pub type Interrupt = dyn Fn(u8, u8) + Send + Sync;

/// The requests of one guest.
pub struct Requests {
    quotes: Arc<Quotes>,
    /// Optional requests that KVM hands on to us, in GetTdVmCallInfo's bits.
    handed_on: u64,
    /// Whom to interrupt when a quote is done: a CPU's number and a vector.
    notify: Arc<Mutex<Option<(u8, u8)>>>,
    interrupt: Arc<Interrupt>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").field("quotes", &self.quotes).finish_non_exhaustive()
    }
}

impl Requests {
    /// Requests whose quotes `quotes` makes. KVM hands on the optional ones in `handed_on`.
    pub fn new(quotes: Arc<Quotes>, handed_on: u64, interrupt: Arc<Interrupt>) -> Self {
        Self { quotes, handed_on, notify: Arc::default(), interrupt }
    }

    /// Serves an exit of CPU `cpu`. What is not known keeps KVM's answer, which says that it is not served.
    pub fn serve(&self, cpu: u8, exit: &mut Exit) {
        let [answer, first, second, ..] = &mut exit.words;
        match exit.nr {
            GET_QUOTE => *answer = self.quote(*first, *second),
            // R11 follows the number of the leaf; the others stay zero.
            CALL_INFO if *first == 1 => {
                *second = self.handed_on & SERVES_EVENT_NOTIFY;
                *answer = SUCCESS;
            }
            SETUP_EVENT_NOTIFY => *answer = self.set_notify(cpu, *first),
            _ => {}
        }
    }

    fn quote(&self, gpa: u64, size: u64) -> u64 {
        let (notify, interrupt) = (Arc::clone(&self.notify), Arc::clone(&self.interrupt));
        let done = move || {
            let target = *notify.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((cpu, vector)) = target {
                interrupt(cpu, vector);
            }
        };
        self.quotes.request(gpa, size, done)
    }

    fn set_notify(&self, cpu: u8, vector: u64) -> u64 {
        match u8::try_from(vector) {
            Ok(number) if vector >= FIRST_VECTOR => {
                *self.notify.lock().unwrap_or_else(PoisonError::into_inner) = Some((cpu, number));
                SUCCESS
            }
            _ => INVALID_OPERAND,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use slog::{Discard, Logger, o};
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory;
    use crate::simulated::AllShared;

    const NOT_SERVED: u64 = 0x8000_0000_0000_0003;

    fn requests(handed_on: u64) -> (Requests, Receiver<(u8, u8)>) {
        let memory = Arc::new(memory::allocate(64).unwrap());
        memory.write_obj(1u64, GuestAddress(0x1_0000)).unwrap();
        memory.write_obj(1024u32, GuestAddress(0x1_0010)).unwrap();
        let quotes = Quotes::new(memory, Arc::new(AllShared), None, Logger::root(Discard, o!()));
        let (sender, receiver) = channel();
        let interrupt = move |cpu, vector| sender.send((cpu, vector)).unwrap();
        (Requests::new(Arc::new(quotes), handed_on, Arc::new(interrupt)), receiver)
    }

    fn serve(requests: &Requests, cpu: u8, nr: u64, arguments: [u64; 5]) -> [u64; 6] {
        let [a, b, c, d, e] = arguments;
        let mut exit = Exit { flags: 0, nr, words: [NOT_SERVED, a, b, c, d, e] };
        requests.serve(cpu, &mut exit);
        assert_eq!((exit.flags, exit.nr), (0, nr));
        exit.words
    }

    #[test]
    fn a_guest_hears_of_its_quote_by_the_interrupt_that_it_set_up() {
        let (requests, interrupts) = requests(2);
        let ask = || serve(&requests, 0, GET_QUOTE, [0x1_0000, 0x4000, 0, 0, 0]);
        assert_eq!(ask()[0], 0);
        assert!(interrupts.try_recv().is_err());
        assert_eq!(serve(&requests, 3, SETUP_EVENT_NOTIFY, [0x40, 0, 0, 0, 0])[0], 0);
        assert_eq!(ask()[0], 0);
        assert_eq!(interrupts.recv().unwrap(), (3, 0x40));
        for vector in [0, 31, 256, u64::MAX] {
            assert_eq!(serve(&requests, 1, SETUP_EVENT_NOTIFY, [vector, 0, 0, 0, 0])[0], INVALID_OPERAND);
        }
        ask();
        assert_eq!(interrupts.recv().unwrap(), (3, 0x40));
    }

    #[test]
    fn what_is_served_is_said_and_no_more() {
        for (handed_on, said) in [(0, 0), (2, 2), (u64::MAX, 2)] {
            let (requests, _interrupts) = requests(handed_on);
            assert_eq!(serve(&requests, 0, CALL_INFO, [1, 0, 0, 0, 0]), [0, 1, said, 0, 0, 0]);
        }
        let (requests, _interrupts) = requests(2);
        assert_eq!(serve(&requests, 0, CALL_INFO, [2, 0, 0, 0, 0])[0], NOT_SERVED);
        assert_eq!(serve(&requests, 0, 0x1_0009, [1, 2, 3, 4, 5]), [NOT_SERVED, 1, 2, 3, 4, 5]);
    }
}
