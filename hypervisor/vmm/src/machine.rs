//! A virtual machine: made from a configuration and its files, then run.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use kvm_ioctls::{VcpuFd, VmFd};
use nacre_control::{Moment, QuoteService, StopReason, TeeConfig, TeePlatform, VmConfig};
use nacre_devices::block::BlockHandle;
use nacre_devices::console::ConsoleTail;
use nacre_devices::{EventFd, EventLoop, SharedMemory, Worker};
use nacre_launch::{HostData, command_line, devices as places};
use nacre_stage0_abi::AddressRange;

use crate::attester::{self, Attester};
use crate::boot::{BootError, BootSource};
use crate::cpu::{self, CpuError, Exits};
use crate::devices::{DeviceError, Devices};
use crate::files::{Files, FilesError};
use crate::measured::{MeasuredError, MeasuredFiles, Placed, Planned};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::ports::Ports;
use crate::private::{Asked, Awaited, PrivateMemory};
use crate::reports::{Report, Reporter, moment};
use crate::simulated::{AllShared, SoftwareProcessorError};
use crate::snp::certificates::{Certificates, CertificatesError};
use crate::snp::{self, CpuidError, SnpError};
use crate::start::{Prepared, Ready, Source};
use crate::tdx::{self, Identity, QuoteSource, Quotes, Service, TdxError};
use crate::unsafe_kernel;
use crate::wired::{Kind, Wired, Wishes};

/// The most virtual CPUs of a machine.
pub const MAX_VCPUS: u8 = 64;

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
    /// SEV-SNP.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// The certificates for the guest's reports.
    #[error("confidential.certificates can't be used")]
    Certificates(#[from] CertificatesError),
    /// Intel TDX.
    #[error(transparent)]
    Tdx(#[from] TdxError),
    /// The CPUID page.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// A confidential machine without a plan: a mistake of ours.
    #[error("a confidential machine can't start its kernel directly")]
    Unmeasured,
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
    attester: Option<Arc<Attester>>,
    console_tail: ConsoleTail,
    console_stopper: EventFd,
    // These live as long as the CPUs' threads, which end with the process.
    _vm: Arc<VmFd>,
    _memory: Arc<GuestMemory>,
    _placed: Vec<Placed>,
    _private: Option<Arc<PrivateMemory>>,
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
        let awaited = Arc::new(Awaited::default());
        let mut certificates = None;
        let (kind, confidential): (_, Option<Arc<dyn SharedMemory>>) = match config.tee.as_ref() {
            None => (Kind::Ordinary, None),
            // Its memory is all shared, but its drivers see what a confidential machine's see.
            Some(TeeConfig { platform: TeePlatform::Simulated { .. }, .. }) => {
                (Kind::Ordinary, Some(Arc::new(AllShared)))
            }
            Some(TeeConfig { platform: TeePlatform::Snp { sev, certificates: file }, .. }) => {
                let sev = sev.map(|sev| files.take_file(sev, "/dev/sev")).transpose()?;
                snp::check_host(&kvm, sev.as_ref())?;
                let file = file.map(|file| files.take_file(file, "the certificates")).transpose()?;
                let new = |file| Certificates::new(file, Arc::clone(&memory), awaited.clone(), log.clone());
                certificates = file.map(new).transpose()?.map(Arc::new);
                (Kind::Snp(sev, certificates.clone()), Some(awaited.clone()))
            }
            Some(TeeConfig { platform: TeePlatform::Tdx { quotes }, host_data, .. }) => {
                tdx::check_host(&kvm)?;
                let service = quotes.map(|quotes| quote_service(quotes, &mut files)).transpose()?;
                let quotes = Quotes::new(Arc::clone(&memory), awaited.clone(), service, log.clone());
                let identity = Identity::of(HostData(*host_data));
                (Kind::Tdx(identity, Arc::new(quotes)), Some(awaited.clone()))
            }
        };
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
            let wishes = Wishes { kind, irqchip: config.irqchip, vcpus: config.vcpus, reporter };
            let wired = Wired::new(&kvm, wishes, &memory, &mut devices);
            let prepared = preparing.join().map_err(|_| MachineError::Panicked)?;
            Ok::<_, MachineError>((prepared, wired))
        })?;
        let Wired { vm, bus, cpus } = wired?;
        let (prepared, moment_placed) = prepared?;
        moments.push(moment_placed);
        let stage0 = matches!(prepared, Prepared::Measured(_));
        let Ready { cpus, placed, private, attester, module, requests } =
            prepared.launch(&vm, cpus, &memory)?;
        if let Some(private) = &private {
            awaited.arrived(Arc::clone(private));
        }
        if stage0 {
            moments.push(moment(4));
        }
        start_devices("disks", devices.disk_workers, reporter)?;
        start_devices("nets", devices.net_workers, reporter)?;
        let console_stopper = start_devices("devices", devices.other_workers, reporter)?;
        let ports = Arc::new(Ports::new(reporter.clone(), stage0).with_module(module));
        let conversions = private.as_ref().map(|private| Arc::new(Asked::new(Arc::clone(private))));
        let exits = Exits { ports, bus, conversions, requests: requests.map(Arc::new), certificates };
        let helpers = cpus.len().saturating_sub(1);
        for (vcpu, id) in cpus.into_iter().zip(0..) {
            let prefault = shares(private.as_deref(), id, helpers);
            start_cpu(vcpu, id, prefault, exits.clone(), reporter)?;
        }
        Ok(Self {
            disks: devices.disks,
            attester,
            console_tail: devices.console_tail,
            console_stopper,
            _vm: vm,
            _memory: memory,
            _placed: placed,
            _private: private,
        })
    }

    /// Ends the thread that serves the console once it has served what the guest had written;
    /// [`Report::DevicesStopped`] follows.
    pub fn stop_console(&self) {
        // Fails only when the counter is full, which ends the thread as well.
        let _ = self.console_stopper.write(1);
    }

    /// Serves a connection of the guest's that is for the simulated platform; gives any other one back.
    pub fn serve_reports(&self, port: u32, stream: UnixStream) -> Option<UnixStream> {
        match &self.attester {
            Some(attester) if port == attester::PORT => {
                attester.serve(stream);
                None
            }
            _ => Some(stream),
        }
    }

    /// The last lines of the console, printable.
    pub fn console_tail(&self) -> String {
        self.console_tail.text()
    }
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

fn quote_service(quotes: QuoteService, files: &mut Files) -> Result<Box<dyn QuoteSource>, FilesError> {
    Ok(Box::new(match quotes {
        QuoteService::Socket(file) => Service::Socket(files.take(file, "the quoting service's socket")?),
        QuoteService::Vsock { cid, port } => Service::Vsock { cid, port },
    }))
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

/// The private memory that the thread of CPU `id` maps before the guest starts that CPU.
fn shares(private: Option<&PrivateMemory>, id: u8, helpers: usize) -> Vec<AddressRange> {
    let (Some(private), Some(number)) = (private, id.checked_sub(1)) else { return Vec::new() };
    private.ranges().filter_map(|range| cpu::share(range, number.into(), helpers as u64)).collect()
}

fn start_cpu(
    vcpu: VcpuFd,
    id: u8,
    prefault: Vec<AddressRange>,
    exits: Exits,
    reporter: &Reporter,
) -> Result<(), MachineError> {
    let reporter = reporter.clone();
    let name = format!("vcpu{id}");
    let run = move || {
        if id == 0 {
            reporter.send(Report::Running(moment(5)));
        }
        // KVM before 6.11 can't; it is for speed only.
        let _ = prefault.into_iter().try_for_each(|range| cpu::prefault(&vcpu, range));
        reporter.send(Report::Ended(cpu::run(vcpu, id, &exits)));
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run);
    thread.map(drop).map_err(|error| MachineError::Thread(name, error))
}
