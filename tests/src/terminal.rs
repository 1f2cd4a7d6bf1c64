//! A program with a terminal of its own.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, openpty};

use crate::failure::{Failure, equal};
use crate::process::{Output, describe};
use crate::wait::eventually;

mod control;

/// A program and the other side of its terminal.
#[derive(Debug)]
pub struct Terminal {
    line: String,
    child: Child,
    keyboard: File,
    /// What the screen has shown so far.
    pub screen: Output,
}

impl Terminal {
    /// Starts a program in a new session whose terminal has this size.
    ///
    /// # Errors
    /// There is no terminal to be had, or the program can't be started.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Result<Self, Failure> {
        let line = describe(command);
        let OpenptyResult { master, slave } = openpty(Some(&control::size(rows, columns)), None)
            .map_err(Failure::other("can't open a terminal"))?;
        let stream = || slave.try_clone().map_err(Failure::io("can't share a terminal"));
        command.stdin(stream()?).stdout(stream()?).stderr(slave);
        control::own_terminal(command);
        let child = command.spawn().map_err(Failure::io(format!("can't start {line}")))?;
        // The command holds the program's side of the terminal open; as long as it does, the screen has no end.
        *command = Command::new("true");
        let keyboard = File::from(master);
        let screen = keyboard.try_clone().map_err(Failure::io("can't share a terminal"))?;
        Ok(Self { line, child, keyboard, screen: Output::of(screen) })
    }

    /// Types this.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_in(&mut self, text: &str) -> Result<(), Failure> {
        self.keyboard
            .write_all(text.as_bytes())
            .map_err(Failure::io(format!("can't type into {}", self.line)))
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Failure> {
        control::resize(self.keyboard.as_raw_fd(), rows, columns)
            .map_err(Failure::io("can't resize a terminal"))
    }

    /// Waits for the end of the program and returns its exit status.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<i32, Failure> {
        let began = Instant::now();
        let status = eventually(limit, || {
            let status =
                self.child.try_wait().map_err(Failure::io(format!("can't wait for {}", self.line)))?;
            equal(
                &format!("{} still runs after {} s", self.line, began.elapsed().as_secs()),
                status.is_some(),
                true,
            )?;
            Ok(status)
        })?;
        Ok(status.and_then(|status| status.code()).unwrap_or(-1))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
