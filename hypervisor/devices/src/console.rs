//! The console device (virtio 1.2, 5.3): the guest's messages, out only.

mod tail;

use std::io::{self, Write};
use std::time::Instant;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::event_loop::Poller;
use crate::fault::Fault;
use crate::queue::ActiveQueue;
use crate::transport::{self, Identity};
use crate::worker::{Activation, Backend, Progress};
use crate::{Device, Wiring};
pub use tail::ConsoleTail;

/// Input and output. Nothing is ever put into the input's buffers.
const IDENTITY: Identity = Identity { device_id: VIRTIO_ID_CONSOLE, features: 0, queue_sizes: &[16, 64] };
const OUTPUT: usize = 1;
/// Bytes that are looked at in one go.
const PORTION: usize = 4096;
/// Chains before other devices have their turn.
const BUDGET: usize = 64;
/// SECURITY: a guest could fill the host's disk. The sink gets this many bytes at once and this many in a
/// second; what is above that is dropped, and the kept tail does not grow.
const BURST: u64 = 4 << 20;
const BYTES_PER_SECOND: u64 = 256 << 10;

/// Makes a console whose output goes to `sink`, if there is one, and always to the tail.
///
/// # Errors
/// The process is out of descriptors.
pub fn new(wiring: Wiring, sink: Option<Box<dyn Write + Send>>) -> io::Result<(Device, ConsoleTail)> {
    let tail = ConsoleTail::default();
    let console =
        Console { queues: Vec::new(), sink, tail: tail.clone(), allowance: Allowance::new(Instant::now()) };
    let device = transport::assemble(wiring, &IDENTITY, vec![0; 12], |_, _| Ok(console))?;
    Ok((device, tail))
}

struct Console {
    queues: Vec<ActiveQueue>,
    sink: Option<Box<dyn Write + Send>>,
    tail: ConsoleTail,
    allowance: Allowance,
}

impl Console {
    fn output(&mut self, bytes: &[u8]) {
        self.tail.append(bytes);
        let Some(sink) = &mut self.sink else { return };
        let dropped_before = self.allowance.dropped;
        if !self.allowance.take(bytes.len(), Instant::now()) {
            return;
        }
        let noted = if dropped_before > 0 {
            self.allowance.dropped = 0;
            writeln!(sink, "\n[{dropped_before} bytes of the console were dropped]")
        } else {
            Ok(())
        };
        if noted.and_then(|()| sink.write_all(bytes)).is_err() {
            // The guest must not stop because a disk of the host is full. The tail goes on.
            self.sink = None;
        }
    }
}

impl Backend for Console {
    fn activate(&mut self, activation: Activation, _: Poller<'_>) -> Result<(), Fault> {
        self.queues = activation.queues;
        Ok(())
    }

    fn run(&mut self, _: Poller<'_>) -> Result<Progress, Fault> {
        let Some(memory) = self.queues.get(OUTPUT).map(ActiveQueue::memory) else {
            return Ok(Progress::Idle);
        };
        let mut progress = Progress::More;
        let mut portion = [0; PORTION];
        for _ in 0..BUDGET {
            let Some(queue) = self.queues.get_mut(OUTPUT) else { break };
            let Some(mut chain) = queue.pop(&memory)? else {
                if queue.ask_for_bell()? {
                    continue;
                }
                progress = Progress::Idle;
                break;
            };
            // The tail would lose all but the end of a longer chain anyway; the driver sends a page at most.
            let excess = chain.readable.len().saturating_sub(PORTION);
            chain.readable.skip(excess);
            let bytes = portion.get_mut(..chain.readable.len()).unwrap_or_default();
            chain.readable.read(bytes)?;
            self.output(bytes);
            if let Some(queue) = self.queues.get_mut(OUTPUT) {
                queue.push_used(chain.head, 0)?;
            }
        }
        if let Some(queue) = self.queues.get_mut(OUTPUT) {
            queue.signal()?;
        }
        Ok(progress)
    }

    fn deactivate(&mut self, _: Poller<'_>) {
        self.queues.clear();
    }
}

/// A token bucket in bytes.
#[derive(Debug)]
struct Allowance {
    tokens: u64,
    filled: Instant,
    dropped: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, dropped: 0 }
    }

    /// Takes `count` tokens, or counts them as dropped.
    fn take(&mut self, count: usize, now: Instant) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let millis = u64::try_from(now.duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(BYTES_PER_SECOND) / 1000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.filled = now;
        }
        if let Some(left) = self.tokens.checked_sub(count) {
            self.tokens = left;
            true
        } else {
            self.dropped = self.dropped.saturating_add(count);
            false
        }
    }
}

#[cfg(test)]
mod tests;
