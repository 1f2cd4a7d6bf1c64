//! What the two halves of a device share: interrupt, fault and configuration space.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// Written by both halves.
#[derive(Debug)]
pub(crate) struct Shared {
    interrupt: EventFd,
    /// InterruptStatus.
    status: AtomicU32,
    faulted: AtomicBool,
    config: ConfigSpace,
}

impl Shared {
    pub fn new(interrupt: EventFd, config: Vec<u8>) -> Self {
        Self {
            interrupt,
            status: AtomicU32::new(0),
            faulted: AtomicBool::new(false),
            config: ConfigSpace { bytes: Mutex::new(config), generation: AtomicU32::new(0) },
        }
    }

    /// Buffers were used.
    pub fn used(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The device can't go on (virtio 1.2, 2.1.1): the driver hears of it by a configuration change.
    pub fn needs_reset(&self) {
        self.faulted.store(true, Ordering::Release);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Changes the configuration space and tells the driver.
    pub fn reconfigure(&self, offset: usize, value: &[u8]) {
        self.config.write(offset, value);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    pub fn interrupt_status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    pub fn faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire)
    }

    /// To the state before the driver came.
    pub fn reset(&self) {
        self.faulted.store(false, Ordering::Release);
        self.status.store(0, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        // Fails only when the interrupt is pending as often as a counter can hold.
        let _ = self.interrupt.write(1);
    }
}

/// The device-specific configuration (virtio 1.2, 2.5): the driver only reads it.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    /// Held for a copy only.
    bytes: Mutex<Vec<u8>>,
    generation: AtomicU32,
}

impl ConfigSpace {
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Fills `data` from `offset`; what lies behind the end is left as it is.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    fn write(&self, offset: usize, value: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
        self.generation.fetch_add(1, Ordering::Release);
    }
}
