//! A display of long work: what runs, for how long, and what comes next.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The steps of a task, known by name from the start.
pub struct Progress {
    names: Vec<&'static str>,
    done: usize,
}

impl Progress {
    /// For these steps, in this order.
    pub fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), done: 0 }
    }

    /// Runs the next step and shows it while it runs.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step<T>(&mut self, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let position = format!("[{}/{}]", self.done + 1, self.names.len());
        let name = self.names.get(self.done).copied().unwrap_or("more");
        let next = self.names.get(self.done + 1).map(|next| format!("; next: {next}")).unwrap_or_default();
        self.done += 1;

        let began = Instant::now();
        let (finished, wait) = channel::<()>();
        let line = format!("{position} {name}");
        let ticker = thread::spawn({
            let line = line.clone();
            move || show_until_finished(&line, &next, began, &wait)
        });
        let result = run();
        drop(finished);
        let _ = ticker.join();
        let verdict = if result.is_ok() { "done" } else { "failed" };
        let clear = if stderr().is_terminal() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{line}: {verdict} in {}", seconds(began.elapsed()));
        result
    }
}

fn show_until_finished(line: &str, next: &str, began: Instant, finished: &std::sync::mpsc::Receiver<()>) {
    let terminal = stderr().is_terminal();
    // Into a log, a line at the start and one a minute; on a terminal, one line that counts the seconds.
    let period = Duration::from_secs(if terminal { 1 } else { 60 });
    loop {
        let elapsed = seconds(began.elapsed());
        if terminal {
            eprint!("\r\x1b[K{line} {elapsed}{next}");
            let _ = stderr().flush();
        } else {
            eprintln!("{line} … {elapsed}{next}");
        }
        if finished.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// `75 s` or `2 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        whole @ 0..120 => format!("{}.{} s", whole, duration.subsec_millis() / 100),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}
