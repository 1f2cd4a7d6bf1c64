//! What this process is allowed to do and how it is ended.

use std::os::fd::OwnedFd;

use nacre_control::CONTROL_FD;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::unsafe_kernel;

/// Why the process can't be made safe to run a guest in.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Not started by a shim.
    #[error("descriptor {CONTROL_FD} is not open: nacre-vmm is started by containerd-shim-nacre-v2")]
    NoControl,
    /// The kernel refused.
    #[error("{0} failed")]
    Refused(&'static str, #[source] Errno),
}

/// Gives up what the process does not need, and takes the control socket. Called once, first thing in `main`.
///
/// # Errors
/// See [`ProcessError`].
pub fn confine() -> Result<OwnedFd, ProcessError> {
    let refused = |what| move |errno| ProcessError::Refused(what, errno);
    let control = unsafe_kernel::inherited(CONTROL_FD).ok_or(ProcessError::NoControl)?;
    // SECURITY: a guest that takes over this process gains nothing by executing a set-user-ID program, and a
    // process of the same user can neither trace it nor read its memory.
    // SECURITY: it has no business on the host's network. containerd also takes the namespace of a task's process
    // for the task's own: `ctr run --cni` would set up the host's otherwise.
    unshare(CloneFlags::CLONE_NEWNET).map_err(refused("unshare(CLONE_NEWNET)"))?;
    prctl::set_no_new_privs().map_err(refused("PR_SET_NO_NEW_PRIVS"))?;
    prctl::set_dumpable(false).map_err(refused("PR_SET_DUMPABLE"))?;
    // A shim that was killed before this line is noticed by the closed control socket.
    unsafe_kernel::die_with_parent().map_err(refused("PR_SET_PDEATHSIG"))?;
    let first_unwanted = CONTROL_FD.unsigned_abs() + 1;
    unsafe_kernel::close_from(first_unwanted).map_err(refused("close_range"))?;
    Ok(control)
}

/// Makes SIGTERM and SIGINT readable instead of deadly. Before the first thread, so that all inherit it.
///
/// # Errors
/// The kernel refuses.
pub fn ending_signals() -> Result<SignalFd, ProcessError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|errno| ProcessError::Refused("sigprocmask", errno))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| ProcessError::Refused("signalfd", errno))
}
