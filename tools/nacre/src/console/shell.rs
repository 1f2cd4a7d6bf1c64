//! The operator's terminal, joined to a shell in a container by two fifos.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nacre_operator::{Call, ShellEnd, TerminalSize};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use rustix::termios::{self, OptionalActions, Termios};

use crate::pods::{Pod, PodError};

/// How long the end of the shell's output may take after the shell's end.
const REST: Duration = Duration::from_secs(2);
/// Where there is no terminal.
const USUAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// Runs a shell until it ends.
///
/// # Errors
/// It does not start.
pub fn run(pod: &Pod, container: Option<String>, command: Vec<String>) -> Result<ExitCode, PodError> {
    let fifos = Fifos::make(&pod.folder).map_err(PodError::io("making fifos"))?;
    // Before any thread starts, so that all have it blocked.
    let resized = SigSet::from(Signal::SIGWINCH);
    resized.thread_block().map_err(|errno| PodError::io("blocking a signal")(errno.into()))?;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let (stdin, stdout) = (text(fifos.input()), text(fifos.output()));
    let call = Call::Shell { container, command, stdin, stdout, size: size() };
    let mut connection = pod.ask(call)?.patient()?;

    let (input, output) = (fifos.input(), fifos.output());
    // These wait for the shim to open its ends, and end with the process.
    thread::spawn(move || pass_in(&input));
    let (done, rest) = mpsc::channel();
    thread::spawn(move || {
        let _ = pass_out(&output);
        let _ = done.send(());
    });
    let writer = connection.writer()?;
    thread::spawn(move || tell_sizes(resized, writer));
    let raw = RawTerminal::new();
    let ended = connection.next::<ShellEnd>();
    if matches!(ended, Ok(Some(_))) {
        let _ = rest.recv_timeout(REST);
    }
    drop(raw);
    let status = ended?.map_or(1, |end| end.exit_status);
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

fn pass_in(path: &Path) -> io::Result<()> {
    let mut fifo = OpenOptions::new().write(true).open(path)?;
    io::copy(&mut io::stdin().lock(), &mut fifo)?;
    Ok(())
}

/// The shell draws on the terminal, so its bytes pass as they are.
fn pass_out(path: &Path) -> io::Result<()> {
    let (mut fifo, mut out, mut buffer) = (File::open(path)?, io::stdout(), [0; 4096]);
    loop {
        match fifo.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                out.write_all(buffer.get(..count).unwrap_or_default())?;
                out.flush()?;
            }
        }
    }
}

fn tell_sizes(resized: SigSet, mut writer: UnixStream) {
    while resized.wait().is_ok() {
        let line = serde_json::to_string(&size()).unwrap_or_default() + "\n";
        if writer.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn size() -> TerminalSize {
    match termios::tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_row > 0 => TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() },
        _ => USUAL,
    }
}

/// A terminal that passes every key, until it is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn new() -> Self {
        let before = io::stdin().is_terminal().then(|| termios::tcgetattr(io::stdin()).ok()).flatten();
        if let Some(mut raw) = before.clone() {
            raw.make_raw();
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Two fifos in the pod's folder, where they go with the pod at the latest.
struct Fifos(PathBuf);

impl Fifos {
    fn make(folder: &Path) -> io::Result<Self> {
        let fifos = Self(folder.join(format!("shell-{}", std::process::id())));
        fs::create_dir(&fifos.0)?;
        for path in [fifos.input(), fifos.output()] {
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(fifos)
    }

    fn input(&self) -> PathBuf {
        self.0.join("in")
    }

    fn output(&self) -> PathBuf {
        self.0.join("out")
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
