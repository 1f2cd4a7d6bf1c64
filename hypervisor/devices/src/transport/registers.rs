//! The register file and its status machine, without side effects beyond itself.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
    VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_LEN_HIGH,
    VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};

use super::Shared;
use crate::queue::{Half, Part, QueueConfig};

/// "virt", read as a little-endian word.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// Ours to choose; "nacr".
const VENDOR: u32 = 0x7263_616e;

const KNOWN_STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_FAILED;

/// What a register write asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// DRIVER_OK was set: check the queues and start.
    Start,
    /// The running device was reset.
    Stop,
}

#[derive(Debug)]
pub(super) struct Registers {
    device_id: u32,
    device_features: u64,
    required: u64,
    device_features_page: u32,
    driver_features: u64,
    driver_features_page: u32,
    queue_selected: u32,
    queues: Vec<QueueConfig>,
    status: u32,
    /// The worker has queues made of `queues`.
    running: bool,
}

impl Registers {
    /// `required` are those of the features that a driver must take.
    pub fn new(device_id: u32, device_features: u64, required: u64, queues: Vec<QueueConfig>) -> Self {
        Self {
            device_id,
            device_features,
            required: required | 1 << VIRTIO_F_VERSION_1,
            device_features_page: 0,
            driver_features: 0,
            driver_features_page: 0,
            queue_selected: 0,
            queues,
            status: 0,
            running: false,
        }
    }

    /// The features that both sides agreed on.
    pub fn features(&self) -> u64 {
        self.driver_features
    }

    pub fn queues(&self) -> &[QueueConfig] {
        &self.queues
    }

    /// The worker has got its queues.
    pub fn started(&mut self) {
        self.running = true;
    }

    pub fn read(&self, offset: u64, shared: &Shared) -> u32 {
        let Ok(offset) = u32::try_from(offset) else { return 0 };
        let queue = self.selected();
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device_id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => page(self.device_features, self.device_features_page),
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            VIRTIO_MMIO_INTERRUPT_STATUS => shared.interrupt_status(),
            VIRTIO_MMIO_STATUS if shared.faulted() => self.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            VIRTIO_MMIO_STATUS => self.status,
            // 4.2.2: a shared memory region that doesn't exist has a length of all ones.
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => shared.config().generation(),
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u64, value: u32, shared: &Shared) -> Option<Action> {
        let offset = u32::try_from(offset).ok()?;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_page = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_page = value,
            VIRTIO_MMIO_DRIVER_FEATURES if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 => {
                set_page(&mut self.driver_features, self.driver_features_page, value);
            }
            VIRTIO_MMIO_QUEUE_SEL => self.queue_selected = value,
            VIRTIO_MMIO_INTERRUPT_ACK => shared.acknowledge(value),
            VIRTIO_MMIO_STATUS => return self.write_status(value, shared),
            _ => self.write_queue(offset, value),
        }
        None
    }

    fn selected(&self) -> Option<&QueueConfig> {
        self.queues.get(usize::try_from(self.queue_selected).ok()?)
    }

    /// SECURITY: a running device must not see its queues change under it (CVE-2026-5747), so these are
    /// inert from DRIVER_OK to the reset.
    fn write_queue(&mut self, offset: u32, value: u32) {
        if self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            return;
        }
        let index = usize::try_from(self.queue_selected).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(index) else { return };
        match offset {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(value),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_address(Part::Descriptors, Half::Low, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_address(Part::Descriptors, Half::High, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_address(Part::Available, Half::Low, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_address(Part::Available, Half::High, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_address(Part::Used, Half::Low, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_address(Part::Used, Half::High, value),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32, shared: &Shared) -> Option<Action> {
        if value == 0 {
            return self.reset(shared);
        }
        // 2.1.1: the driver must not clear a bit, and NEEDS_RESET isn't its to set.
        let value = value & !VIRTIO_CONFIG_S_NEEDS_RESET;
        if value & self.status != self.status || value & !KNOWN_STATUS != 0 {
            return None;
        }
        let added = value & !self.status;
        self.status |= added & !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 && self.features_acceptable() {
            self.status |= VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            return None;
        }
        // 3.1.1: features come first. Setting both at once is no way around the check.
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            shared.needs_reset();
            return None;
        }
        self.status |= VIRTIO_CONFIG_S_DRIVER_OK;
        Some(Action::Start)
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.device_features == 0
            && self.driver_features & self.required == self.required
    }

    fn reset(&mut self, shared: &Shared) -> Option<Action> {
        let running = self.running;
        let fresh: Vec<_> = self.queues.iter().map(|queue| QueueConfig::new(queue.max_size())).collect();
        *self = Self::new(self.device_id, self.device_features, self.required, fresh);
        if running {
            return Some(Action::Stop);
        }
        shared.reset();
        None
    }
}

fn page(features: u64, page: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match page {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_page(features: &mut u64, page: u32, value: u32) {
    match page {
        0 => *features = *features & !u64::from(u32::MAX) | u64::from(value),
        1 => *features = *features & u64::from(u32::MAX) | u64::from(value) << 32,
        // Nothing is offered there, so setting anything there asks for what isn't offered.
        _ if value != 0 => *features |= 1 << 63,
        _ => {}
    }
}
