//! The same kernel, initrd and memory in QEMU's microvm machine: from exec to the initrd's first sign of life.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Sample;
use super::start::sample;
use crate::failure::{Failure, wrong};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const KERNEL: &str = "/usr/share/nacre/vmlinux";
const INITRD: &str = "/usr/share/nacre/initrd.img";

/// The memory of a VM that asks for none.
const MEMORY_MIB: &str = "256";

/// What nacre's own line says to be quicker is said here, too: the machines are compared, not the lines. And no delays by
/// writes to port 0x80, which is where the agent's sign goes.
const COMMAND_LINE: &str = "console=hvc0 reboot=t panic=-1 quiet loglevel=1 noreplace-smp \
                            rcupdate.rcu_expedited=1 no_timer_check tsc=reliable random.trust_cpu=on \
                            cryptomgr.notests swiotlb=noforce acpi=off mce=off io_delay=none";

/// What the agent writes to port 0x80 when it starts.
const STARTED: u8 = 0x41;

const LIMIT: Duration = Duration::from_secs(120);

/// One start.
pub fn measure() -> Result<Sample, Failure> {
    if !Path::new(QEMU).exists() {
        return Err(Failure::CannotRun(format!("{QEMU} is not installed")));
    }
    let mut command = Command::new(QEMU);
    command
        .args(["-machine", "microvm,accel=kvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off"])
        .args(["-cpu", "host", "-smp", "1", "-m", MEMORY_MIB])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-kernel", KERNEL, "-initrd", INITRD, "-append", COMMAND_LINE])
        // Without a console the agent has no descriptors for its messages, and ends.
        .args(["-chardev", "null,id=console", "-device", "virtio-serial-device"])
        .args(["-device", "virtconsole,chardev=console"])
        .args(["-chardev", "stdio,id=mark,signal=off", "-device", "isa-debugcon,iobase=0x80,chardev=mark"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().map_err(Failure::io(format!("can't start {QEMU}")))?;
    let (seen, wait) = mpsc::channel();
    let reader = child.stdout.take().map(|mut stdout| {
        thread::spawn(move || {
            let mut byte = [0];
            while matches!(stdout.read(&mut byte), Ok(1)) {
                if byte == [STARTED] {
                    let _ = seen.send(began.elapsed());
                    return;
                }
            }
        })
    });
    let took = wait.recv_timeout(LIMIT);
    let _ = child.kill();
    let _ = child.wait();
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    match took {
        Ok(took) => Ok(sample("exec_to_ready", "qemu-microvm", took)),
        Err(_) => wrong("the initrd gave no sign of life"),
    }
}
