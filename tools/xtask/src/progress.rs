//! A display of long work: what runs, for how long, and what comes next.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// What a running step says beside its name, for instance how far it is.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<String>>);

impl Note {
    /// Replaces what was said before.
    pub fn set(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn shown(&self) -> String {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() { String::new() } else { format!(" ({text})") }
    }
}

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
        self.step_with_note(|_| run())
    }

    /// Leaves out the next steps.
    pub fn skip(&mut self, steps: usize) {
        self.done += steps;
    }

    /// Like [`Progress::step`], for a step that can say how far it is.
    ///
    /// # Errors
    /// Those of the step.
    pub fn step_with_note<T>(&mut self, run: impl FnOnce(&Note) -> Result<T, Error>) -> Result<T, Error> {
        let position = format!("[{}/{}]", self.done + 1, self.names.len());
        let name = self.names.get(self.done).copied().unwrap_or("more");
        let next = self.names.get(self.done + 1).map(|next| format!("; next: {next}")).unwrap_or_default();
        self.done += 1;

        let began = Instant::now();
        let note = Note::default();
        let (finished, wait) = channel::<()>();
        let line = format!("{position} {name}");
        let ticker = thread::spawn({
            let (line, note) = (line.clone(), note.clone());
            move || show_until_finished(&line, &note, &next, began, &wait)
        });
        let result = run(&note);
        drop(finished);
        let _ = ticker.join();
        let verdict = if result.is_ok() { "done" } else { "failed" };
        let clear = if stderr().is_terminal() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{line}: {verdict} in {}", seconds(began.elapsed()));
        result
    }
}

fn show_until_finished(line: &str, note: &Note, next: &str, began: Instant, finished: &Receiver<()>) {
    let terminal = stderr().is_terminal();
    // Into a log, a line at the start and one a minute; on a terminal, one line that counts the seconds.
    let period = Duration::from_secs(if terminal { 1 } else { 60 });
    loop {
        let (elapsed, note) = (seconds(began.elapsed()), note.shown());
        if terminal {
            eprint!("\r\x1b[K{line} {elapsed}{note}{next}");
            let _ = stderr().flush();
        } else {
            eprintln!("{line} … {elapsed}{note}{next}");
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
