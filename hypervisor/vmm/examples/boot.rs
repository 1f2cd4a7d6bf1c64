//! Starts one `nacre-vmm` without a shim, for tests and measurements.
//!
//! `boot --vmm nacre-vmm --kernel vmlinux --initrd initrd.img` shows the console on stdout and the events as JSON
//! lines on stderr, the last of them with all moments since the VMM was started.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use clap::Parser;
use nacre_control::{
    Backing, CONTROL_FD, Channel, ConsoleConfig, DiskConfig, Event, Extent, FileIndex, Irqchip, Moment,
    Request, SimulatedTee, StopReason, TeeConfig, TeePlatform, VmConfig, VsockConfig,
};
use nacre_vmm::reports::moment;

#[derive(Debug, Parser)]
struct Args {
    /// The VMM's program.
    #[arg(long)]
    vmm: PathBuf,
    /// An ELF vmlinux.
    #[arg(long)]
    kernel: PathBuf,
    #[arg(long)]
    initrd: PathBuf,
    /// Start by a launch plan with this stage0, in the simulated platform.
    #[arg(long)]
    stage0: Option<PathBuf>,
    /// Serve the IOAPIC in the VMM.
    #[arg(long)]
    split_irqchip: bool,
    #[arg(long, default_value_t = 1)]
    vcpus: u8,
    #[arg(long, default_value_t = 256)]
    memory_mib: u32,
    /// Appended to the kernel command line.
    #[arg(long, default_value = "")]
    append: String,
    /// Disks of extents: files separated by commas.
    #[arg(long)]
    extents: Vec<String>,
    /// A disk that is a file, writable.
    #[arg(long)]
    disk: Vec<PathBuf>,
    /// Where to listen for connections to the guest. Made and removed; an abstract name otherwise.
    #[arg(long)]
    listen: Option<PathBuf>,
    /// Ports on which the guest may connect.
    #[arg(long, default_value = "1024")]
    host_port: Vec<u32>,
    /// Stop as soon as the guest has connected (the agent is ready).
    #[arg(long)]
    until_connected: bool,
    /// Send everything that the guest's connection says to stdout.
    #[arg(long)]
    show_connection: bool,
    /// Do not show the console.
    #[arg(long)]
    no_console: bool,
    /// Files to append to the first disk once the guest runs.
    #[arg(long)]
    grow: Vec<PathBuf>,
    /// Read commands from stdin: `stop`, `grow FILE`, `release SECTOR`.
    #[arg(long)]
    interactive: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(StopReason::PowerOff | StopReason::Requested { .. }) => ExitCode::SUCCESS,
        Ok(reason) => {
            eprintln!("boot: {reason}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("boot: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<StopReason, Box<dyn Error>> {
    let (config, files) = machine(args)?;
    let mut moments = vec![moment(0)];
    let (ours, theirs) = Channel::pair()?;
    let mut child = start(args, &theirs)?;
    drop(theirs);
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    ours.send(&Request::Start(Box::new(config)), &borrowed)?;
    drop(files);
    let ours = std::sync::Arc::new(ours);
    if args.interactive {
        let commands = std::sync::Arc::clone(&ours);
        std::thread::spawn(move || command(&commands));
    }
    let reason = events(args, &ours, &mut moments)?;
    child.wait()?;
    moments.push(moment(99));
    report(&moments);
    if let Some(path) = &args.listen {
        std::fs::remove_file(path)?;
    }
    Ok(reason)
}

fn events(args: &Args, channel: &Channel, moments: &mut Vec<Moment>) -> Result<StopReason, Box<dyn Error>> {
    loop {
        let (event, files): (Event, Vec<OwnedFd>) = channel.receive()?;
        eprintln!("{} {}", moment(0).ns / 1000, serde_json::to_string(&event)?);
        match event {
            Event::Started { moments: early } => {
                moments.extend(early);
                let grown = args.grow.iter().map(File::open).collect::<Result<Vec<_>, _>>()?;
                grow(channel, &grown)?;
            }
            Event::Reached(reached) => moments.push(reached),
            Event::GuestConnected { .. } => {
                moments.push(moment(10));
                let stream = files.into_iter().next().ok_or("no descriptor came with the connection")?;
                if args.show_connection {
                    std::thread::spawn(move || show(UnixStream::from(stream)));
                } else {
                    std::mem::forget(stream);
                }
                if args.until_connected {
                    channel.send(&Request::Stop, &[])?;
                }
            }
            Event::ConsoleTail { .. } | Event::DiskGrown { .. } | Event::Stage0Did { .. } => {}
            Event::Stopped { reason, console_tail } => {
                if args.no_console {
                    eprintln!("{console_tail}");
                }
                return Ok(reason);
            }
        }
    }
}

fn grow(channel: &Channel, files: &[File]) -> Result<(), Box<dyn Error>> {
    if files.is_empty() {
        return Ok(());
    }
    let mut extents = Vec::new();
    for number in 0..files.len() {
        extents.push(Extent { file: FileIndex(u8::try_from(number)?) });
    }
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    Ok(channel.send(&Request::GrowDisk { disk: 0, extents }, &borrowed)?)
}

fn command(channel: &Channel) {
    for line in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
        let result = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["stop"] => channel.send(&Request::Stop, &[]).map_err(Into::into),
            ["grow", path] => File::open(path).map_err(Into::into).and_then(|file| grow(channel, &[file])),
            ["release", sector] => sector.parse().map_err(Into::into).and_then(|start| {
                channel
                    .send(&Request::ReleaseExtents { disk: 0, starts: vec![start] }, &[])
                    .map_err(Into::into)
            }),
            _ => Err(format!("unknown command {line:?}").into()),
        };
        if let Err(error) = result {
            eprintln!("boot: {error}");
        }
    }
}

fn show(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let shown = buffer.get(..length).map(|bytes| std::io::stdout().write_all(bytes));
        if !matches!(shown, Some(Ok(()))) {
            return;
        }
    }
}

/// All moments as milliseconds since the VMM was started, in one line.
fn report(moments: &[Moment]) {
    let start = moments.first().map_or(0, |first| first.ns);
    let since: serde_json::Map<String, serde_json::Value> = moments
        .iter()
        .map(|at| (format!("T{}", at.t), serde_json::json!(at.ns.saturating_sub(start) / 1000)))
        .collect();
    eprintln!("{}", serde_json::json!({ "microseconds": since }));
}

fn machine(args: &Args) -> Result<(VmConfig, Vec<OwnedFd>), Box<dyn Error>> {
    let mut files: Vec<OwnedFd> = Vec::new();
    let mut add = |file: OwnedFd| {
        files.push(file);
        u8::try_from(files.len() - 1).map(FileIndex)
    };
    let kvm = add(File::options().read(true).write(true).open("/dev/kvm")?.into())?;
    let kernel = add(File::open(&args.kernel)?.into())?;
    let initrd = add(File::open(&args.initrd)?.into())?;
    let tee = match &args.stage0 {
        Some(path) => Some(TeeConfig {
            platform: TeePlatform::Simulated { tee: SimulatedTee::Snp, key: None },
            stage0: add(File::open(path)?.into())?,
            policy: 0x3_0000,
            host_data: [0; 32],
            id_block: None,
            hashes: None,
        }),
        None => None,
    };
    let mut disks = Vec::new();
    for list in &args.extents {
        let paths = list.split(',').filter(|path| !path.is_empty());
        let extents = paths
            .map(|path| Ok(Extent { file: add(File::open(path)?.into())? }))
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        disks.push(DiskConfig { backing: Backing::Extents(extents) });
    }
    for path in &args.disk {
        let file = add(File::options().read(true).write(true).open(path)?.into())?;
        disks.push(DiskConfig { backing: Backing::File { file, read_only: false } });
    }
    let listener = add(listener(args)?.into())?;
    let output = (!args.no_console)
        .then(|| add(std::io::stdout().as_fd().try_clone_to_owned()?).map_err(Box::<dyn Error>::from));
    let config = VmConfig {
        vcpus: args.vcpus,
        memory_mib: args.memory_mib,
        kvm,
        kernel,
        initrd,
        kernel_parameters: args.append.clone(),
        irqchip: if args.split_irqchip { Irqchip::Split } else { Irqchip::Kernel },
        tee,
        disks,
        nets: Vec::new(),
        vsock: VsockConfig { guest_cid: 3, listener, host_ports: args.host_port.clone() },
        console: ConsoleConfig { output: output.transpose()? },
    };
    Ok((config, files))
}

fn listener(args: &Args) -> std::io::Result<UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    if let Some(path) = &args.listen {
        return UnixListener::bind(path);
    }
    let name = format!("nacre-boot-{}", std::process::id());
    UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[allow(unsafe_code)]
fn start(args: &Args, control: &Channel) -> std::io::Result<Child> {
    let control = control.as_raw_fd();
    let mut command = Command::new(&args.vmm);
    // SAFETY: between fork and exec only dup2 and fcntl are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // On itself dup2 would leave the descriptor to be closed by exec.
            let result = match control {
                CONTROL_FD => libc::fcntl(CONTROL_FD, libc::F_SETFD, 0),
                _ => libc::dup2(control, CONTROL_FD),
            };
            if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    command.spawn()
}
