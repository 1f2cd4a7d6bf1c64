//! The entropy device (virtio 1.2, 5.4).

mod entropy;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::event_loop::Poller;
use crate::fault::Fault;
use crate::queue::ActiveQueue;
use crate::transport::{self, Identity};
use crate::worker::{Activation, Backend, Progress};
use crate::{Device, Wiring};

const IDENTITY: Identity = Identity { device_id: VIRTIO_ID_RNG, features: 0, queue_sizes: &[16] };
/// The most bytes for one request; a driver that wants more asks again.
const MAX_REQUEST: usize = 4096;
/// Requests before other devices have their turn.
const BUDGET: usize = 16;

/// Makes an entropy device.
///
/// # Errors
/// The process is out of descriptors.
pub fn new(wiring: Wiring) -> io::Result<Device> {
    transport::assemble(wiring, &IDENTITY, Vec::new(), |_, _| Ok(Rng { queue: None }))
}

struct Rng {
    queue: Option<ActiveQueue>,
}

impl Backend for Rng {
    fn activate(&mut self, activation: Activation, _: Poller<'_>) -> Result<(), Fault> {
        self.queue = activation.queues.into_iter().next();
        Ok(())
    }

    fn run(&mut self, _: Poller<'_>) -> Result<Progress, Fault> {
        let Some(queue) = &mut self.queue else { return Ok(Progress::Idle) };
        let memory = queue.memory();
        let mut progress = Progress::More;
        let mut entropy = [0; MAX_REQUEST];
        for _ in 0..BUDGET {
            let Some(mut chain) = queue.pop(&memory)? else {
                if queue.ask_for_bell()? {
                    continue;
                }
                progress = Progress::Idle;
                break;
            };
            let count = chain.writable.len().min(MAX_REQUEST);
            let bytes = entropy.get_mut(..count).unwrap_or_default();
            entropy::fill(bytes)?;
            chain.writable.write(bytes)?;
            queue.push_used(chain.head, count)?;
        }
        queue.signal()?;
        Ok(progress)
    }

    fn deactivate(&mut self, _: Poller<'_>) {
        self.queue = None;
    }
}

#[cfg(test)]
mod tests;
