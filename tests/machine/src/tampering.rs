//! A guest of the simulated platform whose kernel, initrd or command line was changed after planning: stage0 refuses it, and
//! says at which stage.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use nacre_control::{ConsoleConfig, FileIndex, StopReason, TeeConfig, TeePlatform, VmConfig, VsockConfig};
use nacre_launch::Kernel;
use nacre_vmm::files::Files;
use nacre_vmm::machine::Machine;
use nacre_vmm::measured::Planned;
use nacre_vmm::reports::{Report, Reporter};

use crate::case::{Case, Failure, equal, said};

pub const CASES: &[Case] = &[
    Case { name: "tamper-nothing", run: nothing },
    Case { name: "tamper-kernel", run: kernel },
    Case { name: "tamper-initrd", run: initrd },
    Case { name: "tamper-command-line", run: command_line },
    Case { name: "tamper-command-line-end", run: command_line_end },
];

/// Where a node has the guest's files.
const FOLDER: &str = "/usr/share/nacre";
/// Hashing takes seconds in an emulated node.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why the cases can't run here, if they can't.
pub fn missing(_: &Kvm) -> Option<String> {
    let there =
        ["stage0.bin", "vmlinux", "initrd.img"].iter().all(|name| Path::new(FOLDER).join(name).exists());
    (!there).then(|| format!("{FOLDER} has not the guest's files"))
}

/// The same way with nothing changed leads to the agent.
fn nothing(_: &Kvm) -> Result<(), Failure> {
    let (_machine, reports) = start(|_| Ok(()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match next(&reports, deadline)? {
            Report::Reached(at) if at.t == 8 => return Ok(()),
            Report::Ended(reason) => return Err(format!("it ended: {reason}")),
            _ => {}
        }
    }
}

fn kernel(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let bytes = fs::read(Path::new(FOLDER).join("vmlinux")).map_err(said("reading the kernel"))?;
        let kernel = Kernel::parse(&bytes).map_err(said("the kernel"))?;
        let segment = kernel.segments.last().ok_or("the kernel has no segment")?;
        planned.kernel = changed(&bytes, segment.file.end - 1)?;
        Ok(())
    };
    refuses(refused, 1, "the kernel is not the one that was measured")
}

fn initrd(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let bytes = fs::read(Path::new(FOLDER).join("initrd.img")).map_err(said("reading the initrd"))?;
        planned.initrd = changed(&bytes, bytes.len() / 2)?;
        Ok(())
    };
    refuses(refused, 2, "the initrd is not the one that was measured")
}

fn command_line(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| flip(&mut planned.command_line, 0);
    refuses(refused, 3, "the command line is not the one that was measured")
}

/// Its final zero is measured, too.
fn command_line_end(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let last = planned.command_line.len() - 1;
        flip(&mut planned.command_line, last)
    };
    refuses(refused, 3, "the command line is not the one that was measured")
}

fn flip(bytes: &mut [u8], place: usize) -> Result<(), Failure> {
    *bytes.get_mut(place).ok_or("no such byte")? ^= 1;
    Ok(())
}

/// A file with these bytes, but for one bit.
fn changed(bytes: &[u8], place: usize) -> Result<File, Failure> {
    let mut bytes = bytes.to_vec();
    flip(&mut bytes, place)?;
    let file = tempfile::tempfile().map_err(said("a temporary file"))?;
    file.write_all_at(&bytes, 0).map_err(said("writing a temporary file"))?;
    Ok(file)
}

/// Fails unless stage0 stops at the images' stage with this code.
fn refuses(
    change: impl FnOnce(&mut Planned) -> Result<(), Failure> + Send,
    code: u8,
    why: &str,
) -> Result<(), Failure> {
    let (_machine, reports) = start(change)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Report::Ended(reason) = next(&reports, deadline)? {
            let (stage_name, why) = ("images".to_owned(), why.to_owned());
            return equal("the end", reason, StopReason::Stage0 { stage: 5, stage_name, code, why });
        }
    }
}

fn next(reports: &Receiver<Report>, deadline: Instant) -> Result<Report, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    reports.recv_timeout(left).map_err(|_| format!("nothing happened for {PATIENCE:?}"))
}

/// Starts a machine of the simulated platform, changed between planning and carrying out.
fn start(
    change: impl FnOnce(&mut Planned) -> Result<(), Failure> + Send,
) -> Result<(Machine, Receiver<Report>), Failure> {
    let open = |name: &str| File::open(Path::new(FOLDER).join(name)).map_err(said(name));
    let kvm = File::options().read(true).write(true).open("/dev/kvm").map_err(said("/dev/kvm"))?;
    let folder = tempfile::tempdir().map_err(said("a temporary folder"))?;
    let listener = UnixListener::bind(folder.path().join("vsock")).map_err(said("a socket"))?;
    let files: Vec<OwnedFd> = vec![
        kvm.into(),
        open("vmlinux")?.into(),
        open("initrd.img")?.into(),
        open("stage0.bin")?.into(),
        listener.into(),
    ];
    let config = VmConfig {
        vcpus: 1,
        memory_mib: 256,
        kvm: FileIndex(0),
        kernel: FileIndex(1),
        initrd: FileIndex(2),
        kernel_parameters: String::new(),
        tee: Some(TeeConfig {
            platform: TeePlatform::Simulated,
            stage0: FileIndex(3),
            policy: 0x3_0000,
            host_data: [0; 32],
            id_block: None,
        }),
        disks: Vec::new(),
        nets: Vec::new(),
        vsock: VsockConfig { guest_cid: 3, listener: FileIndex(4), host_ports: vec![1024] },
        console: ConsoleConfig { output: None },
    };
    let (reporter, reports, _bell) = Reporter::new().map_err(said("reports"))?;
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let mut change_failed = Ok(());
    let after_planning = |planned: &mut Planned| change_failed = change(planned);
    let machine =
        Machine::start_planned(&config, Files::new(files), &reporter, &mut Vec::new(), &log, after_planning)
            .map_err(|error| nacre_vmm::chain_text(&error))?;
    change_failed?;
    Ok((machine, reports))
}
