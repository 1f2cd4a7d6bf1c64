//! A whole guest, started by the VMM's code in this process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use nacre_control::{
    ConsoleConfig, FileIndex, HashFiles, Irqchip, Moment, SimulatedTee, StopReason, TeeConfig, TeePlatform,
    VmConfig, VsockConfig,
};
use nacre_vmm::files::Files;
use nacre_vmm::machine::Machine;
use nacre_vmm::measured::Planned;
use nacre_vmm::reports::{Report, Reporter, moment};

use crate::case::{Failure, equal, said};

/// Where a node has the guest's files.
pub const FOLDER: &str = "/usr/share/nacre";
/// Hashing takes seconds in an emulated node.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// The kernel first.
    Direct,
    /// stage0 first, in the simulated platform.
    Simulated,
    /// The same, with hashes remembered in this folder.
    Remembering(&'a Path),
}

/// A guest that runs. It ends with the process.
pub struct Guest {
    /// T0, before anything was done, and those up to the first instruction.
    pub moments: Vec<Moment>,
    reports: Receiver<Report>,
    deadline: Instant,
    _machine: Machine,
}

/// Why no guest can be started here, if none can.
pub fn missing(_: &Kvm) -> Option<String> {
    let there =
        ["stage0.bin", "vmlinux", "initrd.img"].iter().all(|name| Path::new(FOLDER).join(name).exists());
    (!there).then(|| format!("{FOLDER} has not the guest's files"))
}

/// Starts the node's guest; a measured one is changed between planning and carrying out.
pub fn start(
    way: Way<'_>,
    change: impl FnOnce(&mut Planned) -> Result<(), Failure> + Send,
) -> Result<Guest, Failure> {
    let kernel = Path::new(FOLDER).join("vmlinux");
    start_kernel(File::open(kernel).map_err(said("vmlinux"))?, way, change)
}

/// Starts a guest with another kernel.
pub fn start_kernel(
    kernel: File,
    way: Way<'_>,
    change: impl FnOnce(&mut Planned) -> Result<(), Failure> + Send,
) -> Result<Guest, Failure> {
    let open = |name: &str| File::open(Path::new(FOLDER).join(name)).map_err(said(name));
    let kvm = File::options().read(true).write(true).open("/dev/kvm").map_err(said("/dev/kvm"))?;
    let folder = tempfile::tempdir().map_err(said("a temporary folder"))?;
    let listener = UnixListener::bind(folder.path().join("vsock")).map_err(said("a socket"))?;
    let mut files: Vec<OwnedFd> = vec![
        kvm.into(),
        kernel.into(),
        open("initrd.img")?.into(),
        open("stage0.bin")?.into(),
        listener.into(),
    ];
    let hashes = match way {
        Way::Remembering(folder) => {
            for name in ["kernel", "initrd"] {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(false);
                files.push(options.open(folder.join(name)).map_err(said("a file for hashes"))?.into());
            }
            Some(HashFiles { kernel: FileIndex(5), initrd: FileIndex(6) })
        }
        Way::Direct | Way::Simulated => None,
    };
    let tee = TeeConfig {
        platform: TeePlatform::Simulated { tee: SimulatedTee::Snp, key: None },
        stage0: FileIndex(3),
        policy: 0x3_0000,
        host_data: [0; 32],
        id_block: None,
        hashes,
    };
    let config = VmConfig {
        vcpus: 1,
        memory_mib: 256,
        kvm: FileIndex(0),
        kernel: FileIndex(1),
        initrd: FileIndex(2),
        kernel_parameters: String::new(),
        irqchip: Irqchip::Kernel,
        tee: (way != Way::Direct).then_some(tee),
        disks: Vec::new(),
        nets: Vec::new(),
        vsock: VsockConfig { guest_cid: 3, listener: FileIndex(4), host_ports: vec![1024] },
        console: ConsoleConfig { output: None },
    };
    let (reporter, reports, _bell) = Reporter::new().map_err(said("reports"))?;
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let mut changed = Ok(());
    let after_planning = |planned: &mut Planned| changed = change(planned);
    let mut moments = vec![moment(0)];
    let machine =
        Machine::start_planned(&config, Files::new(files), &reporter, &mut moments, &log, after_planning)
            .map_err(|error| nacre_vmm::chain_text(&error))?;
    changed?;
    Ok(Guest { moments, reports, deadline: Instant::now() + PATIENCE, _machine: machine })
}

impl Guest {
    /// Fails unless the guest's end is this one.
    pub fn ends(&self, wanted: StopReason) -> Result<(), Failure> {
        loop {
            if let Report::Ended(reason) = self.next()? {
                return equal("the end", reason, wanted);
            }
        }
    }

    /// What happens next.
    pub fn next(&self) -> Result<Report, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.reports.recv_timeout(left).map_err(|_| format!("nothing happened for {PATIENCE:?}"))
    }
}
