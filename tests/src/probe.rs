//! `nacre-probe`: what tests run inside containers where busybox has no program for it.
//!
//! - `list-files`: every file of the root file system, one line each, with all that can be seen of it.
//! - `stream N`: N bytes of the tests' pattern to standard output.
//! - `pause`: does nothing until it is told to end, and collects processes that nobody else waits for.
//! - `eat MIB`: touches that much memory, then waits to be killed.

#[path = "probe/files.rs"]
mod files;
mod pattern;

use std::io::{self, Write};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use pattern::Pattern;

/// Bytes for each write of a stream: larger than a pipe, so that short writes happen.
const PIECE: usize = 256 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["list-files"] => files::list(&mut io::stdout().lock()),
        ["stream", count] => number(count).and_then(stream),
        ["pause"] => pause(),
        ["eat", mib] => number(mib).and_then(eat),
        _ => Err(io::Error::other("usage: nacre-probe list-files | stream BYTES | pause | eat MIB")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nacre-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> io::Result<usize> {
    word.parse().map_err(|_| io::Error::other(format!("{word} is not a number")))
}

fn stream(count: usize) -> io::Result<()> {
    let mut pattern = Pattern::default();
    let mut piece = vec![0; PIECE];
    let mut output = io::stdout().lock();
    let mut left = count;
    while left > 0 {
        let size = left.min(PIECE);
        let piece = piece.get_mut(..size).unwrap_or_default();
        pattern.fill(piece);
        output.write_all(piece)?;
        left -= size;
    }
    output.flush()
}

fn pause() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGCHLD {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|found| found != WaitStatus::StillAlive) {}
    }
    Ok(())
}

fn eat(mib: usize) -> io::Result<()> {
    let mut eaten = Vec::new();
    for _ in 0..mib {
        let mut piece = vec![0_u8; 1 << 20];
        Pattern::default().fill(&mut piece);
        eaten.push(piece);
    }
    println!("ate {} MiB", eaten.len());
    loop {
        std::thread::park();
    }
}
