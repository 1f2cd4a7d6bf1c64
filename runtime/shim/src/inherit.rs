//! Giving a child process one descriptor at a number of our choice, and taking it there.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Puts `file` at `number` of the process that `command` starts. The command owns it from then on.
pub fn inherit(command: &mut Command, file: OwnedFd, number: RawFd) {
    let place = move || {
        let from = file.as_raw_fd();
        let done = if from == number {
            // SAFETY: `from` is open; clearing close-on-exec has no other effect.
            unsafe { libc::fcntl(from, libc::F_SETFD, 0) }
        } else {
            // SAFETY: `from` is open, and in the child nobody else uses `number`.
            unsafe { libc::dup2(from, number) }
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure calls only `fcntl` and `dup2`, which are async-signal-safe, and
    // allocates nothing: `last_os_error` is a number.
    unsafe { command.pre_exec(place) };
}

/// Takes the descriptor that the parent put at `number`, close-on-exec from now on.
///
/// # Errors
/// There is none.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call only changes a flag of a descriptor; a number without one is refused.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and called once at the start of the process, before anybody else could own it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
