//! A virtual machine: made from a configuration and its files, then run.

use std::io;
use std::sync::Arc;
use std::thread;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nacre_control::{Moment, StopReason, VmConfig};
use nacre_devices::block::BlockHandle;
use nacre_devices::console::ConsoleTail;
use nacre_devices::{EventFd, EventLoop, SharedMemory, Worker};
use nacre_launch::{command_line, devices as places};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::boot::{BootError, BootSource};
use crate::cpu::{self, CpuError, CpuModel};
use crate::devices::{DeviceError, Devices, MmioBus};
use crate::files::{Files, FilesError};
use crate::measured::{MeasuredError, MeasuredFiles, Placed, Planned};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::ports::Ports;
use crate::reports::{Report, Reporter, moment};
use crate::simulated::{AllShared, SoftwareProcessorError};
use crate::start::{Prepared, Source};
use crate::{layout, unsafe_kernel};

/// The most virtual CPUs of a machine.
pub const MAX_VCPUS: u8 = 64;
const KVM_API_VERSION: i32 = 12;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The number of CPUs is out of range.
    #[error("{0} virtual CPUs are asked for, 1 to {MAX_VCPUS} are possible")]
    CpuCount(u8),
    /// A file did not come.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The file that should be `/dev/kvm` is something else, or a KVM from before 2007.
    #[error("the file that came as /dev/kvm does not answer as KVM does")]
    NotKvm,
    /// KVM refused to make the machine.
    #[error("{request} failed")]
    Kvm {
        /// The request.
        request: &'static str,
        /// The cause.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// No memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Kernel, initrd or command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A measured machine's files, plan or memory.
    #[error(transparent)]
    Measured(#[from] MeasuredError),
    /// The software model of the security processor.
    #[error(transparent)]
    SoftwareProcessor(#[from] SoftwareProcessorError),
    /// A virtual CPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A defect of ours.
    #[error("placing the guest's images panicked")]
    Panicked,
    /// A thread or an event loop.
    #[error("can't start the {0} thread")]
    Thread(String, #[source] io::Error),
}

/// A running machine. It has no end of its own: [`Report::Ended`] says when to end the process.
#[derive(Debug)]
pub struct Machine {
    /// Control over the disks, in their order.
    pub disks: Vec<BlockHandle>,
    console_tail: ConsoleTail,
    console_stopper: EventFd,
    // These live as long as the CPUs' threads, which end with the process.
    _vm: VmFd,
    _memory: Arc<GuestMemory>,
    _placed: Vec<Placed>,
}

impl Machine {
    /// Makes the machine and starts its threads. The moments T3 and T4 are added to `moments`.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn start(
        config: &VmConfig,
        files: Files,
        reporter: &Reporter,
        moments: &mut Vec<Moment>,
        log: &slog::Logger,
    ) -> Result<Self, MachineError> {
        Self::start_planned(config, files, reporter, moments, log, |_| {})
    }

    /// As [`Machine::start`], with a look at a measured machine's plan before it is carried out: for measurements, and for
    /// tests that put other files into the window than were planned.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn start_planned(
        config: &VmConfig,
        mut files: Files,
        reporter: &Reporter,
        moments: &mut Vec<Moment>,
        log: &slog::Logger,
        after_planning: impl FnOnce(&mut Planned) + Send,
    ) -> Result<Self, MachineError> {
        if config.vcpus == 0 || config.vcpus > MAX_VCPUS {
            return Err(MachineError::CpuCount(config.vcpus));
        }
        let kvm = unsafe_kernel::kvm_from(files.take(config.kvm, "/dev/kvm")?);
        let memory = Arc::new(memory::allocate(config.memory_mib)?);
        // A simulated machine's memory is all shared, but its drivers see what a confidential machine's see.
        let confidential = config.tee.as_ref().map(|_| Arc::new(AllShared) as Arc<dyn SharedMemory>);
        let mut devices = Devices::new(config, &mut files, &memory, confidential, reporter, log)?;
        let source = match &config.tee {
            None => Source::Direct(boot_source(config, &mut files, devices.count())?),
            Some(tee) => Source::Measured(Box::new(MeasuredFiles::take(config, tee, &mut files)?)),
        };
        // KVM's part waits for grace periods of the host's kernel, placing the images copies: side by side
        // they take as long as the longer one.
        let (prepared, wired) = thread::scope(|scope| {
            let prepare = || source.prepare(&memory, after_planning).map(|prepared| (prepared, moment(3)));
            let preparing = thread::Builder::new()
                .name("images".to_owned())
                .spawn_scoped(scope, prepare)
                .map_err(|error| MachineError::Thread("images".to_owned(), error))?;
            let wired = Wired::new(&kvm, &memory, &mut devices, config.vcpus);
            let prepared = preparing.join().map_err(|_| MachineError::Panicked)?;
            Ok::<_, MachineError>((prepared, wired))
        })?;
        let Wired { vm, bus, cpus } = wired?;
        let (prepared, moment_placed) = prepared?;
        moments.push(moment_placed);
        let stage0 = matches!(prepared, Prepared::Measured(_));
        let placed = prepared.launch(&vm, &memory, &cpus)?;
        if stage0 {
            moments.push(moment(4));
        }
        start_devices("disks", devices.disk_workers, reporter)?;
        start_devices("nets", devices.net_workers, reporter)?;
        let console_stopper = start_devices("devices", devices.other_workers, reporter)?;
        let ports = Arc::new(Ports::new(reporter.clone(), stage0));
        for (vcpu, id) in cpus.into_iter().zip(0..) {
            start_cpu(vcpu, id, &ports, &bus, reporter)?;
        }
        Ok(Self {
            disks: devices.disks,
            console_tail: devices.console_tail,
            console_stopper,
            _vm: vm,
            _memory: memory,
            _placed: placed,
        })
    }

    /// Ends the thread that serves the console once it has served what the guest had written;
    /// [`Report::DevicesStopped`] follows.
    pub fn stop_console(&self) {
        // Fails only when the counter is full, which ends the thread as well.
        let _ = self.console_stopper.write(1);
    }

    /// The last lines of the console, printable.
    pub fn console_tail(&self) -> String {
        self.console_tail.text()
    }
}

/// What KVM has made.
struct Wired {
    vm: VmFd,
    bus: Arc<MmioBus>,
    cpus: Vec<VcpuFd>,
}

impl Wired {
    fn new(kvm: &Kvm, memory: &GuestMemory, devices: &mut Devices, vcpus: u8) -> Result<Self, MachineError> {
        let vm = make_vm(kvm, memory)?;
        let bus = Arc::new(devices.connect(&vm)?);
        let model = CpuModel::of_host(kvm, vcpus)?;
        let cpus = (0..vcpus).map(|id| model.create(&vm, id)).collect::<Result<_, CpuError>>()?;
        Ok(Self { vm, bus, cpus })
    }
}

fn make_vm(kvm: &Kvm, memory: &GuestMemory) -> Result<VmFd, MachineError> {
    let failed = |request| move |source| MachineError::Kvm { request, source };
    if kvm.get_api_version() != KVM_API_VERSION {
        return Err(MachineError::NotKvm);
    }
    let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    vm.set_tss_address(layout::KVM_TSS).map_err(failed("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
    for (region, slot) in memory.iter().zip(0..) {
        unsafe_kernel::add_memory(&vm, slot, region.start_addr().0, region)
            .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(vm)
}

fn boot_source(config: &VmConfig, files: &mut Files, devices: u32) -> Result<BootSource, MachineError> {
    Ok(BootSource {
        kernel: files.take_file(config.kernel, "the guest kernel")?,
        initrd: files.take_file(config.initrd, "the initrd")?,
        command_line: command_line::plain(devices, &config.kernel_parameters),
        vcpus: config.vcpus,
        interrupts: places::interrupts(devices),
    })
}

/// Serves `workers` on a thread. What comes back ends it.
fn start_devices(
    name: &'static str,
    workers: Vec<Worker>,
    reporter: &Reporter,
) -> Result<EventFd, MachineError> {
    let failed = |error| MachineError::Thread(name.to_owned(), error);
    let events = EventLoop::new(workers).map_err(failed)?;
    let stopper = events.stopper().map_err(failed)?;
    let reporter = reporter.clone();
    let serve = move || {
        reporter.send(match events.run() {
            Ok(()) => Report::DevicesStopped,
            Err(error) => Report::Ended(StopReason::Failed(format!("the {name} thread failed: {error}"))),
        });
    };
    thread::Builder::new().name(name.to_owned()).spawn(serve).map_err(failed)?;
    Ok(stopper)
}

fn start_cpu(
    vcpu: VcpuFd,
    id: u8,
    ports: &Arc<Ports>,
    bus: &Arc<MmioBus>,
    reporter: &Reporter,
) -> Result<(), MachineError> {
    let (ports, bus, reporter) = (Arc::clone(ports), Arc::clone(bus), reporter.clone());
    let name = format!("vcpu{id}");
    let run = move || {
        if id == 0 {
            reporter.send(Report::Running(moment(5)));
        }
        reporter.send(Report::Ended(cpu::run(vcpu, &ports, &bus)));
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run);
    thread.map(drop).map_err(|error| MachineError::Thread(name, error))
}
