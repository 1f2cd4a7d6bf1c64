//! The terminal's system calls.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A size in characters.
pub fn size(rows: u16, columns: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Sets the size of a terminal.
pub fn resize(terminal: RawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = size(rows, columns);
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives until the call returns.
    let result = unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the program start in a session of its own, with its standard input as the controlling terminal.
pub fn own_terminal(command: &mut Command) {
    // SAFETY: between fork and exec, only system calls that are safe in a signal handler are made.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
