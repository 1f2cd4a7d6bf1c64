//! The agent on a machine that is not its own: everything it changes is in namespaces that end with it.
//!
//! Two processes: the outer one stays in the machine's pid namespace and cgroup, passes signals on and removes the
//! cgroup at the end. The inner one is PID 1 of a new pid namespace, with its own mounts, host name, network, IPC and
//! cgroup root, and is the agent.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setgroups};

use crate::cgroup;
use crate::spawner::fork_child;

/// A socket that was bound while the machine's files could be seen.
pub enum Bound {
    /// At a path of the machine.
    Unix(OwnedFd),
    /// Not a path: it is bound later.
    Later,
}

/// Binds the address if it is a path, before the view of the files changes.
pub fn bind(address: &str) -> io::Result<Bound> {
    match address.strip_prefix("unix://") {
        Some(path) if !path.starts_with('@') => {
            if Path::new(path).exists() {
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(Bound::Unix(listener.into()))
        }
        _ => Ok(Bound::Later),
    }
}

/// Splits into the two processes. Returns in the inner one; the outer one ends with the inner one's status.
pub fn enter() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    match mount(Some("cgroup2"), cgroup::ROOT, Some("cgroup2"), MsFlags::empty(), None::<&str>) {
        // It is there already; on a machine with cgroup v1 it now hides that, in this namespace only.
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(errno) => return Err(errno.into()),
    }
    let own = own_cgroup()?;
    fs::create_dir(&own)?;
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    match fork_child()? {
        Some(inner) => {
            let code = outlive(inner, &signals);
            if let Err(error) = remove_cgroup(&own) {
                eprintln!("nacre-agent: the cgroup {} is left: {error}", own.display());
            }
            process::exit(code);
        }
        None => {
            sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals), None)?;
            set_pdeathsig(Signal::SIGKILL)?;
            isolate(&own)
        }
    }
}

/// The cgroup to make below that of this process.
fn own_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let current = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(Path::new(cgroup::ROOT).join(current).join(format!("nacre-agent-{}", process::id())))
}

fn isolate(own: &Path) -> io::Result<()> {
    fs::write(own.join("cgroup.procs"), "0")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    setgroups(&[])?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, None::<&str>)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), plain, None::<&str>)?;
    mount(Some("cgroup2"), cgroup::ROOT, Some("cgroup2"), plain, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))?;
    Ok(())
}

/// Waits for the inner process, passing on what asks it to end; its exit code.
fn outlive(inner: Pid, signals: &SigSet) -> i32 {
    loop {
        match waitpid(inner, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) => {}
            Err(_) => return 1,
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {}
            Ok(signal) => {
                let _ = kill(inner, signal);
            }
            Err(_) => return 1,
        }
    }
}

/// All processes are gone with the pid namespace; what is left are empty folders.
fn remove_cgroup(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
