//! A driver for one device, and the thread that runs the device.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::GuestMemoryMmap;

use super::{Buffer, Ring};
use crate::{Device, EventFd, EventLoop, MmioDevice};

/// Offsets of registers.
pub(crate) mod register {
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_PAGE: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_PAGE: u64 = 0x24;
    pub const QUEUE_SELECT: u64 = 0x30;
    pub const QUEUE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const DESCRIPTORS: u64 = 0x80;
    pub const AVAILABLE: u64 = 0x90;
    pub const USED: u64 = 0xa0;
    pub const GENERATION: u64 = 0xfc;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register.
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
/// Tests wait at most this long for what should take microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The thread that runs a device.
pub(crate) struct Running {
    stop: EventFd,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.write(1).unwrap();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// A driver.
pub(crate) struct Driver {
    pub mmio: Arc<MmioDevice>,
    pub interrupt: EventFd,
    pub memory: Arc<GuestMemoryMmap>,
    pub rings: Vec<Ring>,
    _running: Running,
}

/// Runs a device on a thread of its own.
pub(crate) fn run(device: Device, interrupt: EventFd, memory: Arc<GuestMemoryMmap>) -> Driver {
    let events = EventLoop::new(vec![device.worker]).unwrap();
    let stop = events.stopper().unwrap();
    let thread = Some(std::thread::spawn(move || events.run()));
    let running = Running { stop, thread };
    Driver { mmio: Arc::new(device.mmio), interrupt, memory, rings: Vec::new(), _running: running }
}

impl Driver {
    pub fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.mmio.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub fn write(&self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes());
    }

    pub fn write_address(&self, offset: u64, address: u64) {
        self.write(offset, u32::try_from(address & 0xffff_ffff).unwrap());
        self.write(offset + 4, u32::try_from(address >> 32).unwrap());
    }

    pub fn offered(&self) -> u64 {
        self.write(register::DEVICE_FEATURES_PAGE, 1);
        let high = self.read(register::DEVICE_FEATURES);
        self.write(register::DEVICE_FEATURES_PAGE, 0);
        u64::from(high) << 32 | u64::from(self.read(register::DEVICE_FEATURES))
    }

    /// Everything that is offered but `without`, then started.
    pub fn start(&mut self, without: u64) {
        self.negotiate(self.offered() & !without);
        self.set_up_queues();
        self.finish();
        assert_eq!(self.status() & (DRIVER_OK | NEEDS_RESET), DRIVER_OK);
    }

    /// Reset up to agreed features.
    pub fn negotiate(&self, features: u64) {
        self.write(register::STATUS, 0);
        self.write(register::STATUS, ACKNOWLEDGE);
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER);
        self.write(register::DRIVER_FEATURES_PAGE, 0);
        self.write(register::DRIVER_FEATURES, u32::try_from(features & 0xffff_ffff).unwrap());
        self.write(register::DRIVER_FEATURES_PAGE, 1);
        self.write(register::DRIVER_FEATURES, u32::try_from(features >> 32).unwrap());
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    /// Rings of the largest size for all queues.
    pub fn set_up_queues(&mut self) {
        self.rings.clear();
        for number in 0.. {
            self.write(register::QUEUE_SELECT, number);
            let size = u16::try_from(self.read(register::QUEUE_MAX)).unwrap();
            if size == 0 {
                break;
            }
            let ring = Ring::new(&self.memory, u64::from(number), size);
            self.write(register::QUEUE_SIZE, u32::from(size));
            self.write_address(register::DESCRIPTORS, ring.descriptors);
            self.write_address(register::AVAILABLE, ring.available);
            self.write_address(register::USED, ring.used);
            self.write(register::QUEUE_READY, 1);
            self.rings.push(ring);
        }
    }

    pub fn finish(&self) {
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub fn status(&self) -> u32 {
        self.read(register::STATUS)
    }

    pub fn ring_bell(&self, queue: usize) {
        self.write(register::NOTIFY, u32::try_from(queue).unwrap());
    }

    /// Makes a chain available and rings the bell if the device wants that.
    pub fn send(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let head = self.rings[queue].add(buffers);
        if self.rings[queue].wants_bell(1) {
            self.ring_bell(queue);
        }
        head
    }

    /// Waits until a chain of `queue` comes back.
    pub fn wait_used(&mut self, queue: usize) -> (u16, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.rings[queue].take_used() {
                return used;
            }
            assert!(Instant::now() < deadline, "no chain of queue {queue} came back");
            self.wait_interrupt();
        }
    }

    /// Sends a chain and waits for it.
    pub fn call(&mut self, queue: usize, buffers: &[Buffer]) -> Vec<u8> {
        let head = self.send(queue, buffers);
        let (used, bytes) = self.wait_used(queue);
        assert_eq!(head, used);
        bytes
    }

    /// Waits for an interrupt, acknowledges it and returns its reasons.
    pub fn wait_interrupt(&self) -> u32 {
        assert!(readable(&self.interrupt, PATIENCE), "no interrupt came");
        self.interrupt.read().unwrap();
        let reasons = self.read(register::INTERRUPT_STATUS);
        self.write(register::INTERRUPT_ACK, reasons);
        reasons
    }

    /// Whether an interrupt comes within a moment. For what must not happen.
    pub fn is_interrupted(&self) -> bool {
        readable(&self.interrupt, Duration::from_millis(50))
    }

    /// Waits until the device asks for a reset.
    pub fn wait_needs_reset(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.status() & NEEDS_RESET == 0 {
            assert!(Instant::now() < deadline, "the device goes on");
            if readable(&self.interrupt, Duration::from_millis(100)) {
                self.interrupt.read().unwrap();
            }
        }
    }
}

pub(crate) fn readable(fd: &impl AsRawFd, patience: Duration) -> bool {
    #[allow(unsafe_code)]
    // SAFETY: the descriptor is open as long as `fd` is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let mut fds = [PollFd::new(borrowed, PollFlags::POLLIN)];
    let millis = u16::try_from(patience.as_millis()).unwrap();
    poll(&mut fds, PollTimeout::from(millis)).unwrap() == 1
}
