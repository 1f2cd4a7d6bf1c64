//! Programs that a test starts: their input, their output as it comes, and their end.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, equal, wrong};

/// How long a program may take where a test says nothing else.
pub const PATIENCE: Duration = Duration::from_secs(200);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run.
    pub line: String,
    /// Its exit status; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Fails unless it exited with this status.
    ///
    /// # Errors
    /// It exited with another one.
    pub fn exited(self, code: i32) -> Result<Self, Failure> {
        if self.code == code {
            return Ok(self);
        }
        let Self { line, stdout, stderr, .. } = &self;
        wrong(format!("{line}: exit status {}, wanted {code}\nstdout: {stdout}\nstderr: {stderr}", self.code))
    }

    /// Fails unless it exited with zero and wrote exactly this.
    ///
    /// # Errors
    /// It exited otherwise or wrote something else.
    pub fn wrote(self, text: &str) -> Result<Self, Failure> {
        let this = self.exited(0)?;
        equal(&this.line, this.stdout.as_str(), text)?;
        Ok(this)
    }

    /// Fails if it exited with zero.
    ///
    /// # Errors
    /// It exited with zero.
    pub fn failed(self) -> Result<Self, Failure> {
        if self.code != 0 {
            return Ok(self);
        }
        wrong(format!("{}: succeeded, but must fail; stdout: {}", self.line, self.stdout))
    }
}

/// A program that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    began: Instant,
    stdin: Option<ChildStdin>,
    /// What it has written to standard output so far.
    pub stdout: Output,
    /// What it has written to standard error so far.
    pub stderr: Output,
}

impl Running {
    /// Starts it, with pipes for its three streams.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let (mut this, stdout) = Self::start_unread(command)?;
        this.stdout = Output::of(stdout);
        Ok(this)
    }

    /// As [`Running::start`], but nobody reads its standard output except the caller.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_unread(command: &mut Command) -> Result<(Self, ChildStdout), Failure> {
        let line = describe(command);
        let start = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = start.map_err(Failure::io(format!("can't start {line}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return wrong(format!("{line} was started without pipes"));
        };
        let stderr = Output::of(stderr);
        let this =
            Self { line, child, began: Instant::now(), stdin: Some(stdin), stdout: Output::closed(), stderr };
        Ok((this, stdout))
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It does not read any more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let what = format!("can't write to {}", self.line);
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes).and_then(|()| stdin.flush()).map_err(Failure::io(what)),
            None => wrong(format!("{what}: its standard input is closed")),
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It runs for longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<Finished, Failure> {
        let end = Instant::now() + limit;
        for output in [&self.stdout, &self.stderr] {
            if !output.wait_for_end(end) {
                let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
                return wrong(format!(
                    "{}: still runs after {} s\nstdout: {stdout}\nstderr: {stderr}",
                    self.line,
                    limit.as_secs()
                ));
            }
        }
        let status = self.child.wait().map_err(Failure::io(format!("can't wait for {}", self.line)))?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Ok(Finished { line: self.line.clone(), code, stdout, stderr, took: self.began.elapsed() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, with nothing to read.
///
/// # Errors
/// It can't be started, or runs for longer than [`PATIENCE`].
pub fn run(command: &mut Command) -> Result<Finished, Failure> {
    let mut running = Running::start(command)?;
    running.close_stdin();
    running.finish(PATIENCE)
}

/// A command line as a person would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What a program writes, collected by a thread as it comes.
#[derive(Debug, Clone)]
pub struct Output(Arc<Collected>);

#[derive(Debug)]
struct Collected {
    /// The bytes so far, and whether the stream has ended.
    state: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Output {
    /// Collects what can be read from `stream`.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let this =
            Self(Arc::new(Collected { state: Mutex::new((Vec::new(), false)), changed: Condvar::new() }));
        let collected = this.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // A terminal ends with an error.
                let count = stream.read(&mut buffer).unwrap_or(0);
                collected.add(buffer.get(..count).unwrap_or_default());
                if count == 0 {
                    return;
                }
            }
        });
        this
    }

    fn closed() -> Self {
        Self(Arc::new(Collected { state: Mutex::new((Vec::new(), true)), changed: Condvar::new() }))
    }

    fn add(&self, bytes: &[u8]) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.extend_from_slice(bytes);
        state.1 = bytes.is_empty();
        self.0.changed.notify_all();
    }

    /// All so far.
    pub fn text(&self) -> String {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.0).into_owned()
    }

    /// Waits until `part` was written.
    ///
    /// # Errors
    /// The stream ended, or the time is over.
    pub fn wait_for(&self, part: &str, limit: Duration) -> Result<(), Failure> {
        self.wait_until(&format!("{part:?}"), limit, |text| text.contains(part))
    }

    /// Waits until what was written is as `wanted`, which `what` describes.
    ///
    /// # Errors
    /// The stream ended, or the time is over.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + limit;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let text = String::from_utf8_lossy(&state.0);
            if wanted(&text) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                let why = if state.1 { "the stream ended" } else { "the time is over" };
                return wrong(format!("waited for {what}, but {why}; found {text:?}"));
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self, end: Instant) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.1 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
