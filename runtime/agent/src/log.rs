//! The agent's log: one JSON object a line, on stderr, which is the console in a VM.

use std::io;

use slog::{Drain, Level, LevelFilter, Logger, o};

/// Makes the log. A console that is slow must not stop a call: lines wait in a queue, and what does not fit is
/// counted and dropped.
pub fn logger(level: Level) -> Logger {
    let lines = slog_json::Json::new(io::stderr()).add_default_keys().set_newlines(true).build();
    let drain = LevelFilter::new(lines.ignore_res(), level).ignore_res();
    let drain = slog_async::Async::new(drain).chan_size(1024).build().ignore_res();
    Logger::root(drain, o!("name" => "nacre-agent", "version" => env!("CARGO_PKG_VERSION")))
}

/// A level by the name it has on the kernel's command line.
pub fn level(name: &str) -> Option<Level> {
    Some(match name {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" | "warning" => Level::Warning,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => return None,
    })
}
