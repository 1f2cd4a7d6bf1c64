//! The two things about processes and descriptors that the compiler can't check.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks: the child's pid in the parent, `None` in the child. Only for processes with a single thread.
pub fn fork_child() -> io::Result<Option<Pid>> {
    // SAFETY: all callers have one thread (the agent before its runtime starts, the spawner, its helpers), so that no
    // lock is held by a thread which the child does not have.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Takes a descriptor that the kernel has just installed for this process, by `SCM_RIGHTS`.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor came with the message that was just received and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets the disposition of a signal to the default or to being ignored.
pub(super) fn set_handler(which: Signal, handler: SigHandler) -> nix::Result<()> {
    // SAFETY: both callers pass SIG_IGN or SIG_DFL: no code of ours runs in signal context.
    unsafe { signal(which, handler) }.map(drop)
}

/// Makes these variables the whole environment of this process.
pub(super) fn replace_environment(env: &HashMap<String, String>) {
    let old: Vec<_> = std::env::vars_os().map(|(key, _)| key).collect();
    for key in old {
        // SAFETY: a container's process before its exec has one thread.
        unsafe { std::env::remove_var(key) };
    }
    for (key, value) in env.iter().filter(|(key, _)| !key.is_empty() && !key.contains(['=', '\0'])) {
        if !value.contains('\0') {
            // SAFETY: as above; the name and the value were checked for what `set_var` does not take.
            unsafe { std::env::set_var(key, value) };
        }
    }
}
