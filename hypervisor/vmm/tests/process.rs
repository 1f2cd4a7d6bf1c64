//! The program as its shim sees it, as far as that needs no KVM.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{Read, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nacre_control::{
    CONTROL_FD, Channel, ConsoleConfig, Event, FileIndex, Irqchip, Request, StopReason, VmConfig, VsockConfig,
};
use rstest::rstest;

fn start() -> (Child, Channel) {
    start_with(&File::open("/dev/null").unwrap())
}

/// Starts the VMM with one more descriptor than it should have.
#[allow(unsafe_code)]
fn start_with(unwanted: &impl AsRawFd) -> (Child, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let (control, unwanted) = (theirs.as_raw_fd(), unwanted.as_raw_fd());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nacre-vmm"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec only dup2 is called, which is async-signal-safe. Neither is descriptor 3 or
    // 200: the test harness has the one open and too few for the other.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in [(control, CONTROL_FD), (unwanted, 200)] {
                if libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    (command.spawn().unwrap(), ours)
}

fn config() -> VmConfig {
    VmConfig {
        vcpus: 1,
        memory_mib: 64,
        kvm: FileIndex(0),
        kernel: FileIndex(1),
        initrd: FileIndex(2),
        kernel_parameters: String::new(),
        irqchip: Irqchip::Kernel,
        tee: None,
        disks: Vec::new(),
        nets: Vec::new(),
        vsock: VsockConfig { guest_cid: 3, listener: FileIndex(3), host_ports: vec![1024] },
        console: ConsoleConfig { output: None },
    }
}

/// No KVM, an empty kernel, an empty initrd and a listener.
fn files(folder: &tempfile::TempDir) -> Vec<OwnedFd> {
    let empty = || OwnedFd::from(tempfile::tempfile().unwrap());
    let listener = UnixListener::bind(folder.path().join("vsock.sock")).unwrap();
    vec![File::open("/dev/null").unwrap().into(), empty(), empty(), listener.into()]
}

fn failure(config: VmConfig, files: &[OwnedFd]) -> String {
    let (mut child, channel) = start();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    channel.send(&Request::Start(Box::new(config)), &borrowed).unwrap();
    let (event, _) = channel.receive::<Event>().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    match event {
        Event::Stopped { reason: StopReason::Failed(text), console_tail } if console_tail.is_empty() => text,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::kvm(|_: &mut VmConfig| {}, "the file that came as /dev/kvm does not answer as KVM does")]
#[case::cpus(|config: &mut VmConfig| config.vcpus = 65, "65 virtual CPUs are asked for, 1 to 64 are possible")]
#[case::no_cpus(|config: &mut VmConfig| config.vcpus = 0, "0 virtual CPUs are asked for, 1 to 64 are possible")]
#[case::memory(|config: &mut VmConfig| config.memory_mib = 1, "1 MiB of guest memory are too few, the least is 64")]
#[case::cid(|config: &mut VmConfig| config.vsock.guest_cid = 2, "the guest's context id 2 is not allowed")]
#[case::missing(
    |config: &mut VmConfig| config.initrd = FileIndex(9),
    "the initrd is file 9 of a message that came with 4"
)]
#[case::twice(
    |config: &mut VmConfig| config.initrd = FileIndex(1),
    "the initrd is file 1, which another part of the message has taken"
)]
fn what_keeps_a_machine_from_starting_is_told_in_words(
    #[case] change: impl Fn(&mut VmConfig),
    #[case] message: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    change(&mut config);
    assert_eq!(failure(config, &files(&folder)), message);
}

#[test]
fn the_first_message_must_be_a_start() {
    let (mut child, channel) = start();
    channel.send(&Request::Stop, &[]).unwrap();
    let (event, _) = channel.receive::<Event>().unwrap();
    assert!(
        matches!(event, Event::Stopped { reason: StopReason::Failed(text), .. } if text.contains("Stop"))
    );
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_shim_that_goes_away_takes_the_vmm_along() {
    let (mut child, channel) = start();
    drop(channel);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_started_vmm_is_confined() {
    let (mut reader, writer) = pipe().unwrap();
    let (mut child, channel) = start_with(&writer);
    drop(writer);
    // The end of the pipe says that the VMM has closed what it should not have, its last step.
    reader.read_to_end(&mut Vec::new()).unwrap();

    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert!(status.contains("Name:\tnacre-vmm"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    drop(channel);
    child.wait().unwrap();
}
