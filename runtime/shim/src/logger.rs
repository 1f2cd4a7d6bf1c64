//! Structured logs: to containerd's fifo, and to a file of the pod when asked.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use nacre_configuration::values::LogLevel;
use slog::{Drain, Level, Logger, o};

use crate::recent::Recent;

/// containerd's fifo, in the bundle, which is the shim's working directory.
const FIFO: &str = "log";

/// A logger for a pod. Without containerd's fifo (a shim that is started by hand) it goes to stderr.
pub fn logger(
    level: LogLevel,
    namespace: &str,
    sandbox: &str,
    file: Option<&Path>,
    recent: Recent,
) -> Logger {
    // Read and write: opening does not wait for containerd, and its restart does not break the fifo. What does not
    // fit while nobody reads is dropped: a log must not stop a pod.
    let fifo = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(FIFO).ok();
    let file = file.and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
    let output = Output { line: Vec::new(), fifo, file, recent };
    let drain = slog_json::Json::new(output).add_default_keys().set_newlines(true).build();
    let drain = Mutex::new(drain).map(slog::Fuse);
    let level = match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    let keys = o!("namespace" => namespace.to_owned(), "sandbox" => sandbox.to_owned());
    Logger::root(drain.filter_level(level).fuse(), keys)
}

/// Where the lines go, each in one piece.
#[derive(Debug)]
struct Output {
    line: Vec<u8>,
    fifo: Option<File>,
    file: Option<File>,
    recent: Recent,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            if let Some(file) = &mut self.file {
                let _ = file.write_all(&self.line);
            }
            self.recent.add(&String::from_utf8_lossy(&self.line));
            let _ = match &mut self.fifo {
                Some(fifo) => fifo.write(&self.line).map(drop),
                None => io::stderr().write_all(&self.line),
            };
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
