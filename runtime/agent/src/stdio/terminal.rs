//! A process's terminal.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use oci_spec::runtime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Reader, Writer};
use crate::readiness;

mod ioctl {
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);
}

/// The master of a terminal.
#[derive(Debug, Clone)]
pub struct Terminal(Shared);

/// The master as a stream, shared by its reader, its writer and the calls that set its size.
#[derive(Debug, Clone)]
pub struct Shared(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes the master.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(Shared(Arc::new(readiness::watch(master)?))))
    }

    /// What the terminal prints.
    pub fn reader(&self) -> Reader {
        Reader::Terminal(self.0.clone())
    }

    /// What is typed.
    pub fn writer(&self) -> Writer {
        Writer::Terminal(self.0.clone())
    }

    /// Sets the size, in characters.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        set_size(self.0.0.get_ref().as_fd(), rows, columns)
    }
}

/// Sets the size of a terminal, given either end of it.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and `size` is the structure that TIOCSWINSZ reads.
    unsafe { ioctl::set_window_size(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// The rows and columns of a specification, if they are any.
pub fn wanted_size(size: Option<&runtime::Box>) -> Option<(u16, u16)> {
    let size = size?;
    let fit = |value: u64| u16::try_from(value).ok().filter(|value| *value > 0);
    Some((fit(size.height())?, fit(size.width())?))
}

impl Shared {
    /// Reads; the error that the kernel gives once all processes have closed the terminal is its end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(Interest::READABLE, |master| Ok(nix::unistd::read(master, buffer)?)).await;
        match read {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// Writes all of it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written =
                self.0.async_io(Interest::WRITABLE, |master| Ok(nix::unistd::write(master, bytes)?)).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}
