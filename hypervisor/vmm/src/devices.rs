//! The guest's devices: which there are, where, and what they are connected to.
//!
//! All exist from the start, in an order that never changes: disks, network interfaces, the socket device, the
//! random number generator, the console. What arrives later arrives inside of one of them.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use nacre_control::{Backing, DiskConfig, NetConfig, TeeConfig, TeePlatform, VmConfig};
use nacre_devices::block::BlockHandle;
use nacre_devices::console::ConsoleTail;
use nacre_devices::{
    Device, EventFd, MmioDevice, NOTIFY_OFFSET, SharedMemory, Wiring, Worker, block, console, net, rng, vsock,
};
use nacre_launch::devices;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_VERSION};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use crate::attester;
use crate::files::{Files, FilesError};
use crate::irqchip::IoApic;
use crate::memory::GuestMemory;
use crate::reports::{Report, Reporter, moment};

/// Why the devices can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A file is missing.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// More devices than interrupts.
    #[error("{0} devices are configured, the machine has room for {max}", max = devices::MOST)]
    TooMany(usize),
    /// The context id is reserved.
    #[error("the guest's context id {0} is not allowed")]
    ContextId(u32),
    /// A device could not be made.
    #[error("can't make the {what} device")]
    Make {
        /// Its kind.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// KVM refused to connect a device.
    #[error("{request} failed for the device at {address:#x}")]
    Connect {
        /// The KVM request.
        request: &'static str,
        /// The device's first register.
        address: u64,
        /// The cause.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// The guest's devices before they run.
#[derive(Debug)]
pub struct Devices {
    slots: Vec<Slot>,
    /// Those that serve disks.
    pub disk_workers: Vec<Worker>,
    /// Those that serve network interfaces.
    pub net_workers: Vec<Worker>,
    /// All others: a slow disk or a busy network must not delay the agent's stream.
    pub other_workers: Vec<Worker>,
    /// Control over the disks, in their order.
    pub disks: Vec<BlockHandle>,
    /// What the console said last.
    pub console_tail: ConsoleTail,
}

#[derive(Debug)]
struct Slot {
    address: u64,
    gsi: u32,
    interrupt: EventFd,
    mmio: MmioDevice,
}

/// What all constructors need.
struct Builder<'a> {
    memory: &'a Arc<GuestMemory>,
    confidential: Option<Arc<dyn SharedMemory>>,
    log: &'a slog::Logger,
    slots: Vec<Slot>,
}

impl Devices {
    /// Makes the devices that `config` asks for out of `files`. `confidential` tells which memory they may touch.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn new(
        config: &VmConfig,
        files: &mut Files,
        memory: &Arc<GuestMemory>,
        confidential: Option<Arc<dyn SharedMemory>>,
        reporter: &Reporter,
        log: &slog::Logger,
    ) -> Result<Self, DeviceError> {
        let count = config.disks.len() + config.nets.len() + 3;
        if u32::try_from(count).is_ok_and(|count| count > devices::MOST) {
            return Err(DeviceError::TooMany(count));
        }
        let mut builder = Builder { memory, confidential, log, slots: Vec::with_capacity(count) };
        let mut disks = Vec::new();
        let mut disk_workers = Vec::new();
        for (disk, number) in config.disks.iter().zip(0..) {
            let (worker, handle) = builder.disk(disk, number, files)?;
            disk_workers.push(worker);
            disks.push(handle);
        }
        let mut net_workers = Vec::new();
        for interface in &config.nets {
            net_workers.push(builder.net(interface, files)?);
        }
        let vsock = builder.vsock(config, files, reporter)?;
        let rng = builder.add("random number", rng::new)?;
        let output =
            config.console.output.map(|file| files.take_file(file, "the console's output")).transpose()?;
        let (console, console_tail) = builder.console(output)?;
        let other_workers = vec![vsock, rng, console];
        Ok(Self { slots: builder.slots, disk_workers, net_workers, other_workers, disks, console_tail })
    }

    /// The first register and the interrupt of each device, in order.
    #[cfg(test)]
    fn places(&self) -> Vec<(u64, u32)> {
        self.slots.iter().map(|slot| (slot.address, slot.gsi)).collect()
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(devices::MOST)
    }

    /// Lets KVM deliver the devices' interrupts and take the driver's doorbells without leaving the kernel.
    /// Gives the registers for the CPUs' other accesses, with the IOAPIC's where it is ours.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn connect(&mut self, vm: &VmFd, ioapic: Option<IoApic>) -> Result<MmioBus, DeviceError> {
        let mut devices = Vec::with_capacity(self.slots.len());
        for slot in self.slots.drain(..) {
            let failed =
                |request| move |source| DeviceError::Connect { request, address: slot.address, source };
            vm.register_irqfd(&slot.interrupt, slot.gsi).map_err(failed("KVM_IRQFD"))?;
            let bell = IoEventAddress::Mmio(slot.address + NOTIFY_OFFSET);
            for (notifier, queue) in slot.mmio.notifiers().iter().zip(0u32..) {
                vm.register_ioevent(notifier, &bell, queue).map_err(failed("KVM_IOEVENTFD"))?;
            }
            devices.push(slot.mmio);
        }
        Ok(MmioBus { devices, ioapic })
    }
}

impl Builder<'_> {
    fn disk(
        &mut self,
        disk: &DiskConfig,
        number: u32,
        files: &mut Files,
    ) -> Result<(Worker, BlockHandle), DeviceError> {
        let backing = match &disk.backing {
            Backing::Extents(extents) => block::Backing::Extents(files.take_extents(extents)?),
            Backing::Volumes => block::Backing::Volumes,
            Backing::File { file, read_only } => {
                block::Backing::File { file: files.take_file(*file, "a disk")?, read_only: *read_only }
            }
        };
        let serial = format!("nacre{number}");
        self.add_with("block", |wiring| block::new(wiring, backing, &serial))
    }

    fn net(&mut self, interface: &NetConfig, files: &mut Files) -> Result<Worker, DeviceError> {
        let tap = files.take_file(interface.tap, "a tap")?;
        let config = net::Config { tap, mac: interface.mac, mtu: interface.mtu };
        self.add("network", |wiring| net::new(wiring, config))
    }

    fn vsock(
        &mut self,
        config: &VmConfig,
        files: &mut Files,
        reporter: &Reporter,
    ) -> Result<Worker, DeviceError> {
        let listener: OwnedFd = files.take(config.vsock.listener, "the vsock listener")?;
        let cid = config.vsock.guest_cid;
        let guest_cid = vsock::GuestCid::try_from(cid).map_err(|_| DeviceError::ContextId(cid))?;
        let reporter = reporter.clone();
        let mut host_ports = config.vsock.host_ports.clone();
        if matches!(&config.tee, Some(TeeConfig { platform: TeePlatform::Simulated { .. }, .. })) {
            host_ports.push(attester::PORT);
        }
        let config = vsock::Config {
            guest_cid,
            listener: UnixListener::from(listener),
            host_ports,
            events: Box::new(move |event| {
                reporter.send(match event {
                    vsock::Event::FirstPacket => Report::Reached(moment(9)),
                    vsock::Event::Connected { port, stream } => Report::Connected { port, stream },
                });
            }),
        };
        self.add("socket", |wiring| vsock::new(wiring, config))
    }

    fn console(&mut self, output: Option<File>) -> Result<(Worker, ConsoleTail), DeviceError> {
        let output = output.map(|file| Box::new(file) as Box<dyn Write + Send>);
        self.add_with("console", |wiring| console::new(wiring, output))
    }

    fn add(
        &mut self,
        what: &'static str,
        make: impl FnOnce(Wiring) -> io::Result<Device>,
    ) -> Result<Worker, DeviceError> {
        self.add_with(what, |wiring| make(wiring).map(|device| (device, ()))).map(|(worker, ())| worker)
    }

    /// Gives the next place to the device that `make` makes.
    fn add_with<T, E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        what: &'static str,
        make: impl FnOnce(Wiring) -> Result<(Device, T), E>,
    ) -> Result<(Worker, T), DeviceError> {
        let failed = |error: io::Error| DeviceError::Make { what, source: error.into() };
        let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(failed)?;
        let wiring = Wiring {
            memory: Arc::clone(self.memory),
            confidential: self.confidential.clone(),
            interrupt: interrupt.try_clone().map_err(failed)?,
            log: self.log.new(slog::o!("device" => what)),
        };
        let made = make(wiring).map_err(|error| DeviceError::Make { what, source: error.into() });
        let (Device { mmio, worker }, handle) = made?;
        // `Devices::new` has checked the number.
        let (address, gsi) = devices::place(u32::try_from(self.slots.len()).unwrap_or_default());
        self.slots.push(Slot { address, gsi, interrupt, mmio });
        Ok((worker, handle))
    }
}

/// The registers of all devices, as the CPUs reach them.
#[derive(Debug, Default)]
pub struct MmioBus {
    devices: Vec<MmioDevice>,
    ioapic: Option<IoApic>,
}

/// Where an access goes.
enum Target<'a> {
    /// To a device's register.
    Device(&'a MmioDevice, u64),
    /// To a place that a device could have.
    Vacant(u64),
    /// To a register of the IOAPIC.
    IoApic(&'a IoApic, u64),
    /// Elsewhere.
    Nothing,
}

impl MmioBus {
    /// The guest reads; where there is nothing it reads ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Target::Device(device, offset) => device.read(offset, data),
            Target::Vacant(offset) => read_vacant(offset, data),
            Target::IoApic(ioapic, offset) => ioapic.read(offset, data),
            Target::Nothing => data.fill(0xff),
        }
    }

    /// The guest writes; where there is nothing the write is lost.
    pub fn write(&self, address: u64, data: &[u8]) {
        match self.find(address) {
            Target::Device(device, offset) => device.write(offset, data),
            Target::IoApic(ioapic, offset) => ioapic.write(offset, data),
            Target::Vacant(_) | Target::Nothing => {}
        }
    }

    fn find(&self, address: u64) -> Target<'_> {
        let Some(offset) = address.checked_sub(devices::FIRST) else { return Target::Nothing };
        let (number, offset) = (offset / devices::STRIDE, offset % devices::STRIDE);
        match usize::try_from(number).ok().and_then(|number| self.devices.get(number)) {
            Some(device) => Target::Device(device, offset),
            None if number < u64::from(devices::MOST) => Target::Vacant(offset),
            None => match (&self.ioapic, IoApic::offset(address)) {
                (Some(ioapic), Some(offset)) => Target::IoApic(ioapic, offset),
                _ => Target::Nothing,
            },
        }
    }
}

/// A placeholder (virtio 1.2, 4.2.2.1, DeviceID 0), which a driver passes over without a word: a confidential guest's
/// command line names every place.
fn read_vacant(offset: u64, data: &mut [u8]) {
    data.fill(0);
    let word = match u32::try_from(offset).unwrap_or(u32::MAX) {
        VIRTIO_MMIO_MAGIC_VALUE => 0x7472_6976u32,
        VIRTIO_MMIO_VERSION => 2,
        _ => 0,
    };
    if let Ok(place) = <&mut [u8; 4]>::try_from(data) {
        *place = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests;
