//! What PID 1 of a VM does before and after it serves.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot, sync};

use crate::cgroup;
use crate::marker;

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Kind, place, flags, data. The order is that of the tree.
const MOUNTS: [(&str, &str, MsFlags, &str); 10] = [
    ("proc", "/proc", PLAIN, ""),
    ("sysfs", "/sys", PLAIN, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
    ("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", PLAIN, "mode=1777"),
    ("mqueue", "/dev/mqueue", PLAIN, ""),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
    // Apart from the agent's own files: containers may fill it up.
    ("tmpfs", nacre_protocol::SHARED_FOLDER, MsFlags::MS_NODEV, "mode=0755"),
    ("tmpfs", "/tmp", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777"),
    ("cgroup2", cgroup::ROOT, PLAIN, "nsdelegate"),
];

/// Leaves the kernel's first file system for another one, in memory too: containers pivot away from their root, which
/// the kernel refuses for the first one (`pivot_root(2)`).
pub fn leave_first_root() -> io::Result<()> {
    // A folder that the image has; what it holds afterwards is the new root.
    let place = Path::new("/tmp");
    mount(Some("root"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    chdir(place)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    fs::create_dir("/etc")
}

/// Mounts the guest's file systems. One that can't be mounted is named; the others are mounted all the same.
pub fn mount_all() -> Vec<String> {
    let mut failed = Vec::new();
    for (kind, place, flags, data) in MOUNTS {
        if let Err(error) = mount_one(kind, Path::new(place), flags, data) {
            failed.push(format!("mount {kind} on {place}: {error}"));
        }
    }
    failed
}

fn mount_one(kind: &str, place: &Path, flags: MsFlags, data: &str) -> io::Result<()> {
    if !place.exists() {
        fs::create_dir_all(place)?;
    }
    match mount(Some(kind), place, Some(kind), flags, Some(data)) {
        // The kernel mounts devtmpfs by itself if it is told to.
        Err(nix::Error::EBUSY) => Ok(()),
        other => Ok(other?),
    }
}

/// Kernel parameters that let an idle guest sleep, and so its host: without them the kernel looks twice a second
/// whether memory could be compacted, counts pages every second, and every five seconds goes through its lists of
/// neighbours that it is to keep reachable (`NTF_MANAGED` of rtnetlink(7)), which nothing here asks for.
const QUIET: [(&str, &str); 4] = [
    ("/proc/sys/vm/compaction_proactiveness", "0"),
    ("/proc/sys/vm/stat_interval", "30"),
    ("/proc/sys/net/ipv4/neigh/default/interval_probe_time_ms", "3600000"),
    ("/proc/sys/net/ipv6/neigh/default/interval_probe_time_ms", "3600000"),
];

/// Makes the guest quiet when it is idle. A kernel without one of the parameters has nothing to be quietened.
pub fn quieten() {
    for (path, value) in QUIET {
        let _ = fs::write(path, value);
    }
}

/// Ends the VM in good order. Returns only if the kernel refuses.
pub fn power_off() -> io::Error {
    sync();
    marker::shutdown();
    restart()
}

/// Ends the VM because the agent can't go on. Returns only if the kernel refuses.
pub fn crash() -> io::Error {
    marker::crashed();
    restart()
}

/// A VM without ACPI can't be powered off by its kernel; the VMM takes the reset for the end.
fn restart() -> io::Error {
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}
