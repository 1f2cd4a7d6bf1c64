//! virtio over MMIO (virtio 1.2, 4.2), version 2 only.

mod registers;
mod shared;

use std::fmt;
use std::io;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slog::{Logger, o};
use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::queue::{self, QueueConfig};
use crate::shared_memory::Guard;
use crate::worker::{Activation, Backend, Command, Worker, WorkerParts};
use crate::{Device, Wiring};
use registers::{Action, Registers};
pub(crate) use shared::Shared;

/// The size of a device's window in bytes.
pub const MMIO_SIZE: u64 = 0x1000;
/// The offset of QueueNotify: a 4-byte write of a queue's number here rings its bell.
pub const NOTIFY_OFFSET: u64 = 0x50;
const CONFIG_OFFSET: u64 = 0x100;

/// Every device offers these.
const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What a kind of device is to its driver.
#[derive(Debug)]
pub(crate) struct Identity {
    /// virtio 1.2, section 5.
    pub device_id: u32,
    /// Offered in addition to what every device offers.
    pub features: u64,
    /// The largest size of each queue.
    pub queue_sizes: &'static [u16],
}

/// A device's registers. Any thread may access them.
pub struct MmioDevice {
    registers: Mutex<Registers>,
    notifiers: Vec<EventFd>,
    shared: Arc<Shared>,
    memory: Arc<GuestMemoryMmap>,
    guard: Guard,
    commands: Sender<Command>,
    wake: EventFd,
}

impl fmt::Debug for MmioDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MmioDevice").field("registers", &self.registers).finish_non_exhaustive()
    }
}

/// Puts a device together. The backend is made with what its other half shares with it.
pub(crate) fn assemble<B: Backend + 'static>(
    wiring: Wiring,
    identity: &Identity,
    config: Vec<u8>,
    backend: impl FnOnce(&Arc<Shared>, &Logger) -> io::Result<B>,
) -> io::Result<Device> {
    let Wiring { memory, confidential, interrupt, log } = wiring;
    let platform = u64::from(confidential.is_some()) << VIRTIO_F_ACCESS_PLATFORM;
    let guard = Guard(confidential);
    let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
    let wake = EventFd::new(flags)?;
    let notifiers =
        identity.queue_sizes.iter().map(|_| EventFd::new(flags)).collect::<io::Result<Vec<_>>>()?;
    let (sender, commands) = channel();
    let shared = Arc::new(Shared::new(interrupt, config));
    let log = log.new(o!("virtio" => identity.device_id));
    let backend = Box::new(backend(&shared, &log)?);
    let worker = Worker::new(WorkerParts {
        commands,
        wake: wake.try_clone()?,
        notifiers: notifiers.iter().map(EventFd::try_clone).collect::<io::Result<_>>()?,
        shared: Arc::clone(&shared),
        backend,
        log,
    });
    let registers = Registers::new(
        identity.device_id,
        identity.features | COMMON_FEATURES | platform,
        platform,
        identity.queue_sizes.iter().copied().map(QueueConfig::new).collect(),
    );
    let mmio = MmioDevice {
        registers: Mutex::new(registers),
        notifiers,
        shared,
        memory,
        guard,
        commands: sender,
        wake,
    };
    Ok(Device { mmio, worker })
}

impl MmioDevice {
    /// The bell of each queue, in order of their numbers.
    pub fn notifiers(&self) -> &[EventFd] {
        &self.notifiers
    }

    /// The guest reads `data.len()` bytes at `offset` of the window. What isn't there reads as zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG_OFFSET) {
            self.shared.config().read(offset, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.lock().read(offset, &self.shared).to_le_bytes();
        }
    }

    /// The guest writes `data` at `offset` of the window. What can't be written is left alone.
    ///
    /// A write of zero to the status register returns when the worker has let go of the guest's memory.
    pub fn write(&self, offset: u64, data: &[u8]) {
        // No device of ours has a writable configuration field, and registers are words.
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        if offset == NOTIFY_OFFSET {
            self.ring(value);
            return;
        }
        let mut registers = self.lock();
        match registers.write(offset, value, &self.shared) {
            None => {}
            Some(Action::Start) => self.start(&mut registers),
            Some(Action::Stop) => self.stop(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        // Registers hold no invariant that a panic elsewhere could break.
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, queue: u32) {
        let notifier = usize::try_from(queue).ok().and_then(|index| self.notifiers.get(index));
        if let Some(notifier) = notifier {
            // Fails only when the bell has been rung as often as its counter can hold.
            let _ = notifier.write(1);
        }
    }

    fn start(&self, registers: &mut Registers) {
        let features = registers.features();
        let queues = queue::activate(registers.queues(), &self.memory, &self.guard, features, &self.shared);
        match queues {
            Ok(queues) => {
                registers.started();
                self.tell(Command::Activate(Activation { queues, features }));
            }
            Err(fault) => {
                self.shared.needs_reset();
                self.tell(Command::Report(fault));
            }
        }
    }

    /// SECURITY: the guest may use its memory for anything else after a reset, so the worker's answer is
    /// awaited. Its work is synchronous and comes in bounded portions.
    fn stop(&self) {
        let (done, answer) = sync_channel(1);
        self.tell(Command::Reset(done));
        // An error means that the worker is gone, and touches nothing either.
        let _ = answer.recv();
        self.shared.reset();
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // Fails only when the wake-up is already due.
            let _ = self.wake.write(1);
        }
    }
}

#[cfg(test)]
mod tests;
