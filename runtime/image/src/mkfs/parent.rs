//! A child that does not outlive the thread that waits for it.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::{prctl, signal::Signal};

/// Has the kernel kill the child when the calling thread ends, as it does when its process is killed. The caller
/// must wait for the child on this thread.
pub(super) fn end_with_parent(command: &mut Command) {
    let set = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
    // SAFETY: the closure runs between fork and exec of a process that may have more threads, so it must not
    // allocate or lock. It makes one system call; the conversion of its error wraps a number.
    unsafe {
        command.pre_exec(set);
    }
}
