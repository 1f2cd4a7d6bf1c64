//! QEMU as the node's machine, and the setting that holds.
//!
//! With `svm` or `vmx` among the processor's flags and a `/dev/kvm`, the node runs under KVM. Elsewhere TCG emulates an AMD
//! processor with nested virtualisation. With Debian's own QEMU (7.2, 10.0, 11.1) one guest in a hundred triple-faulted or hung,
//! four processors in one guest in every fourth start, and nodes died after minutes; `qemu.rs` says why, and builds the one that
//! is used.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Settings;
use super::failure::Failure;
use super::run::{Run, State};
use super::{qemu, tsc};
use crate::error::Error;
use crate::packages;
use crate::progress::Note;

/// Where Debian's packages keep what QEMU starts machines with.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

/// The oldest QEMU whose emulation of nested virtualisation holds.
const LEAST_VERSION: &str = "1:10.0";

/// What the node's kernel is told. Mitigations cost much under emulation, and an oops or a lost processor is a dead node, not
/// a slow one.
const KERNEL_PARAMETERS: &str = "root=/dev/nvme0n1 rw rootflags=noinit_itable console=ttyS0 quiet panic=1 oops=panic \
     softlockup_panic=1 watchdog_thresh=30 hung_task_panic=1 sysctl.kernel.hung_task_timeout_secs=240 \
     sysctl.kernel.panic_on_rcu_stall=1 rcupdate.rcu_cpu_stall_timeout=60 mitigations=off nokaslr tsc=reliable \
     no_timer_check audit=0 selinux=0 apparmor=0 systemd.show_status=0 systemd.default_timeout_start_sec=200";

/// Accelerator, processor and number of processors.
struct Setting {
    accelerator: &'static str,
    processor: &'static str,
    cpus: u32,
}

impl Setting {
    fn emulates(&self) -> bool {
        self.accelerator != "kvm"
    }

    fn of_this_machine() -> Self {
        if kvm_works() {
            Self { accelerator: "kvm", processor: "host", cpus: 2 }
        } else {
            // All that is known of the mended QEMU was seen without cmpxchg16b.
            Self { accelerator: "tcg,thread=multi,tb-size=512", processor: "EPYC,+svm,+npt,-cx16", cpus: 2 }
        }
    }
}

/// Whether this machine can run virtual machines that can run virtual machines.
fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx");
    hardware && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// QEMU, installed or built.
///
/// # Errors
/// apt has no QEMU that is new enough, or it can't be built.
pub fn program(note: &Note) -> Result<PathBuf, Error> {
    packages::need_version("qemu-system-x86", LEAST_VERSION)?;
    if Setting::of_this_machine().emulates() { qemu::program(note) } else { Ok("qemu-system-x86_64".into()) }
}

/// Starts QEMU. The node is not up before [`wait_until_ready`] returns.
///
/// # Errors
/// QEMU does not start.
pub fn start(
    run: &Run,
    settings: &Settings,
    program: &Path,
    image: &Path,
    kernel: &Path,
) -> Result<State, Error> {
    let setting = Setting::of_this_machine();
    let cpus = settings.cpus.unwrap_or(setting.cpus);
    let port = free_port()?;
    make_overlay(run, &image.join("root.img"))?;
    let mut qemu = command_line(program, run, settings, &setting, cpus, kernel, port);
    let log = run.file("qemu.log");
    let file = File::create(&log).map_err(Error::file("can't write", &log))?;
    let ended = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
    if !ended.success() {
        return Err(Error::Task(format!("QEMU did not start: {}", run.emulator_output())));
    }
    Ok(State {
        pid: read_pid(run)?,
        port,
        started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        took_ms: None,
        image: image.to_path_buf(),
        payload: settings.payload.clone(),
        kernel: settings.kernel,
        setting: format!("{} on {}, {cpus} processors", setting.processor, setting.accelerator),
    })
}

fn command_line(
    program: &Path,
    run: &Run,
    settings: &Settings,
    setting: &Setting,
    cpus: u32,
    kernel: &Path,
    port: u16,
) -> Command {
    let mut qemu = Command::new(program);
    let name = format!("nacre-node-{}", settings.name);
    qemu.args([
        "-name",
        &name,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-daemonize",
    ]);
    qemu.args(FIRMWARE.map(|folder| ["-L", folder]).concat());
    qemu.args(["-machine", "pc", "-accel", setting.accelerator, "-cpu", setting.processor]);
    qemu.args(["-smp", &cpus.to_string(), "-m", &settings.memory_mib.to_string()]);
    qemu.arg("-pidfile").arg(run.file("pid"));
    let clock = setting.emulates().then(|| format!(" tsc_early_khz={}", tsc::kilohertz()));
    let parameters = format!("{KERNEL_PARAMETERS}{}", clock.unwrap_or_default());
    qemu.arg("-kernel").arg(kernel).args(["-append", &parameters]);
    // NVMe because its driver is built into Debian's kernel: no initrd. The payload is on another bus, since the kernel
    // looks for NVMe disks side by side, and numbers them as they answer.
    disk(
        &mut qemu,
        "root",
        "qcow2",
        &run.file("overlay.qcow2"),
        "cache=unsafe,discard=unmap",
        "nvme,serial=root",
    );
    if let Some(payload) = &settings.payload {
        disk(&mut qemu, "payload", "raw", payload, "readonly=on", "virtio-blk-pci");
    }
    qemu.args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    qemu.arg("-serial").arg(format!("file:{}", run.console().display()));
    qemu.arg("-serial").arg(format!("unix:{},server=on,wait=off", run.file("ready").display()));
    qemu
}

fn disk(qemu: &mut Command, id: &str, format: &str, file: &Path, options: &str, device: &str) {
    qemu.arg("-drive").arg(format!("id={id},if=none,format={format},file={},{options}", file.display()));
    qemu.args(["-device", &format!("{device},drive={id}")]);
}

fn make_overlay(run: &Run, image: &Path) -> Result<(), Error> {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image).arg(run.file("overlay.qcow2"));
    crate::command::run("node-overlay", &mut create)
}

/// A port that is free now; QEMU fails to start if another takes it first.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|why| Error::Task(format!("no free port on loopback: {why}")))
}

fn read_pid(run: &Run) -> Result<i32, Error> {
    let path = run.file("pid");
    let text = fs::read_to_string(&path).map_err(Error::file("can't read", &path))?;
    text.trim().parse().map_err(|_| Error::Task(format!("{} holds no process number", path.display())))
}

/// Waits until containerd and ssh serve: reads the node's line on its second serial port, which QEMU's end closes.
///
/// # Errors
/// The node says something else, or nothing in time.
pub fn wait_until_ready(run: &Run, limit: Duration) -> Result<(), Error> {
    let path = run.file("ready");
    let stream = UnixStream::connect(&path).map_err(Error::file("can't connect to", &path))?;
    stream.set_read_timeout(Some(limit)).map_err(Error::file("can't set a time limit on", &path))?;
    let mut line = String::new();
    let said = match BufReader::new(stream).read_line(&mut line) {
        Ok(0) => format!("QEMU ended. {}", run.emulator_output()),
        Ok(_) if line.trim() == "ready" => return Ok(()),
        Ok(_) => format!("it said: {}", line.trim()),
        Err(why) if why.kind() == ErrorKind::WouldBlock => "it said nothing".into(),
        Err(why) => return Err(Error::File { what: "can't read", path, source: why }),
    };
    Err(Failure::NotReady { limit, said, console: run.console_tail(), log: run.console() }.into())
}

/// Whether the node's QEMU runs: its process number may be another's by now.
pub fn alive(run: &Run, state: &State) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{}/cmdline", state.pid)) else { return false };
    let overlay = run.file("overlay.qcow2").display().to_string();
    String::from_utf8_lossy(&arguments).contains(&overlay)
}

/// Ends the node's QEMU and waits until it is gone.
///
/// # Errors
/// It can't be ended.
pub fn stop(run: &Run, state: &State) -> Result<(), Error> {
    let failed =
        |why: rustix::io::Errno| Error::Task(format!("QEMU (process {}) can't be ended: {why}", state.pid));
    let Some(pid) = Pid::from_raw(state.pid) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(why) => return Err(failed(why)),
    };
    if !alive(run, state) {
        return Ok(());
    }
    // QEMU ends at once on the first unless it hangs.
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(&process, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(why) => return Err(failed(why)),
        }
        let patience = Duration::from_secs(10).try_into().ok();
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], patience.as_ref()).map_err(failed)? > 0 {
            return Ok(());
        }
    }
    Err(Error::Task(format!("QEMU (process {}) does not end", state.pid)))
}
