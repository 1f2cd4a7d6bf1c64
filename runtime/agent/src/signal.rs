//! Signals by number, the real-time ones too.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Failure, Reply};

/// The kernel's last signal.
const LAST: i32 = 64;

/// The number of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(i32);

impl Number {
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);

    /// Takes a number from a call.
    pub fn parse(number: u32) -> Reply<Self> {
        i32::try_from(number)
            .ok()
            .filter(|number| (1..=LAST).contains(number))
            .map(Self)
            .ok_or_else(|| Failure::invalid(format!("there is no signal {number}")))
    }

    /// Sends it to a process by its descriptor; one that has ended takes any.
    pub fn send(self, process: BorrowedFd<'_>) -> io::Result<()> {
        let info: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: the descriptor is open, and without the optional structure the kernel reads no memory of ours.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), self.0, info, 0) };
        ended_takes_any(Errno::result(result).map(drop))
    }

    /// Sends it to the process of this id; one that has ended takes any.
    pub fn send_to(self, pid: Pid) -> io::Result<()> {
        // SAFETY: kill(2) reads no memory of ours.
        let result = unsafe { libc::kill(pid.as_raw(), self.0) };
        ended_takes_any(Errno::result(result).map(drop))
    }
}

fn ended_takes_any(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for good in [1, 9, 15, 34, 64] {
            assert!(Number::parse(good).is_ok());
        }
        for bad in [0, 65, u32::MAX] {
            assert!(Number::parse(bad).is_err());
        }
    }
}
