//! What faults the tests make on the node, each undone when it is dropped, and all of them when a test was given up.

use std::fs;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use crate::failure::{Failure, Outcome};
use crate::listing;
use crate::process;

const DROP_IN: &str = "/etc/nacre/conf.d/99-nacre-tests.toml";
const KVM: &str = "/dev/kvm";
const KVM_ASIDE: &str = "/dev/kvm-taken-by-tests";
/// A small file system of the tests' own.
pub const SMALL: &str = "/run/nacre-tests-small";
/// Where containerd and runtimes keep what lives as long as the node runs.
pub const RUN: &str = "/run";
/// Where they keep what lives longer.
pub const DISK: &str = "/var/lib";
/// The file that takes all room in one of them.
const FILLER: &str = "nacre-tests-filler";

/// A fault, as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Disturbance(());

impl Drop for Disturbance {
    fn drop(&mut self) {
        undo();
    }
}

/// Undoes every fault that is still there.
pub fn undo() {
    let _ = fs::remove_file(DROP_IN);
    for folder in [RUN, DISK] {
        let _ = fs::remove_file(Path::new(folder).join(FILLER));
    }
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in [KVM, SMALL] {
        if mounted.lines().any(|line| line.split(' ').nth(1) == Some(point)) {
            let _ = process::run(Command::new("umount").args(["--lazy", point]));
        }
    }
    let _ = fs::remove_dir(SMALL);
    if Path::new(KVM_ASIDE).exists() {
        let _ = fs::rename(KVM_ASIDE, KVM);
    }
    if let Some(pid) = containerd() {
        let _ = limit_memory(pid, "unlimited");
    }
}

/// nacre's configuration with this text in the last drop-in.
pub fn configuration(text: &str) -> Result<Disturbance, Failure> {
    let path = PathBuf::from(DROP_IN);
    let folder = path.parent().unwrap_or(&path).to_path_buf();
    fs::create_dir_all(&folder).map_err(Failure::io(format!("can't make {}", folder.display())))?;
    fs::write(&path, text).map_err(Failure::io(format!("can't write {DROP_IN}")))?;
    Ok(Disturbance(()))
}

/// No `/dev/kvm`.
pub fn no_kvm() -> Result<Disturbance, Failure> {
    match fs::metadata(KVM) {
        Ok(data) if data.file_type().is_char_device() => {}
        _ => return Err(Failure::CannotRun(format!("{KVM} is missing already"))),
    }
    fs::rename(KVM, KVM_ASIDE).map_err(Failure::io(format!("can't move {KVM}")))?;
    Ok(Disturbance(()))
}

/// A `/dev/kvm` that even root may not open: a file system without device files is mounted there.
pub fn forbidden_kvm() -> Result<Disturbance, Failure> {
    let disturbance = small_file_system("nodev")?;
    let device = format!("{SMALL}/kvm");
    run(&["mknod", &device, "c", "10", "232"])?;
    run(&["mount", "--bind", &device, KVM])?;
    Ok(disturbance)
}

/// A file system of 64 KiB at [`SMALL`].
pub fn small_file_system(options: &str) -> Result<Disturbance, Failure> {
    match fs::create_dir(SMALL) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Failure::io(format!("can't make {SMALL}"))(error));
        }
        _ => {}
    }
    let disturbance = Disturbance(());
    run(&["mount", "-t", "tmpfs", "-o", &format!("size=64k,{options}"), "tmpfs", SMALL])?;
    Ok(disturbance)
}

/// No room on the file system of [`RUN`] or [`DISK`].
pub fn full(folder: &str) -> Result<Disturbance, Failure> {
    let path = Path::new(folder).join(FILLER);
    let disturbance = Disturbance(());
    let mut file = fs::File::create(&path).map_err(Failure::io(format!("can't make {}", path.display())))?;
    let room = statvfs(folder).map_err(Failure::other(format!("can't look at {folder}")))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    // Most of it at once; what is left then, and what is reserved for root, by writing.
    let length = (free - free / 64).try_into().unwrap_or(i64::MAX);
    posix_fallocate(&file, 0, length).map_err(Failure::other(format!("can't fill {folder}")))?;
    file.seek(SeekFrom::End(0)).map_err(Failure::io(format!("can't fill {folder}")))?;
    for piece in [1 << 20, 4096, 1] {
        let piece = vec![b'x'; piece];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(disturbance)
}

/// No more than this much address space for what containerd starts.
pub fn little_memory(mib: u64) -> Result<Disturbance, Failure> {
    let Some(pid) = containerd() else {
        return Err(Failure::CannotRun("containerd is not found".to_owned()));
    };
    limit_memory(pid, &(mib << 20).to_string())?;
    Ok(Disturbance(()))
}

/// A cgroup whose memory is nearly taken.
#[derive(Debug)]
pub struct FullCgroup {
    folder: PathBuf,
    file: PathBuf,
}

/// Makes a cgroup of this name that may have `mib` MiB of memory, of which `free` are left.
///
/// # Errors
/// It can't be made.
pub fn full_cgroup(name: &str, mib: u64, free: u64) -> Result<FullCgroup, Failure> {
    let full =
        FullCgroup { folder: Path::new("/sys/fs/cgroup").join(name), file: Path::new("/dev/shm").join(name) };
    fs::create_dir(&full.folder).map_err(Failure::io("can't make a cgroup"))?;
    fs::write(full.folder.join("memory.max"), (mib << 20).to_string())
        .map_err(Failure::io("can't limit a cgroup's memory"))?;
    // What is in a file system of memory is its writer's, also after that one's end.
    let (processes, file) = (full.folder.join("cgroup.procs"), full.file.display());
    let taken = mib - free;
    let script = format!("echo $$ > {}; head -c {taken}M /dev/zero > {file}", processes.display());
    run(&["sh", "-c", &script])?;
    Ok(full)
}

impl Drop for FullCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.folder);
    }
}

fn limit_memory(pid: u32, bytes: &str) -> Outcome {
    run(&["prlimit", "--pid", &pid.to_string(), &format!("--as={bytes}")])
}

/// containerd's own process.
pub fn containerd() -> Option<u32> {
    let program = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "containerd"
    };
    listing::pids().into_iter().find(program)
}

fn run(words: &[&str]) -> Outcome {
    let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
    process::run(Command::new(program).args(arguments))?.exited(0).map(|_| ())
}
