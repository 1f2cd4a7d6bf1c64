//! The test node: a disposable Debian machine in QEMU with a working `/dev/kvm` and containerd.
//!
//! Its root image is made once from the machine's own Debian mirror; what it writes goes to an overlay that `down`
//! removes. Our programs come on a second disk, mounted at `/payload`. It is reached by ssh over loopback only.

mod emulator;
mod failure;
mod image;
mod kernel;
mod qemu;
mod run;
mod soak;
mod ssh;
mod task;
mod tsc;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

pub use failure::{Death, Failure};
pub use task::{Arguments, run as task};

use crate::error::Error;
use crate::guest;
use crate::progress::Progress;
use run::{Run, State};
use ssh::Shell;

/// The steps that [`Node::up_with`] shows.
pub const STEPS: [&str; 3] =
    ["packages and emulator for the test node", "image of the test node", "start of the test node"];

/// How long a node may take from QEMU's start until containerd and ssh serve.
const START_LIMIT: Duration = Duration::from_secs(240);

/// The Debian release that a node runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Suite {
    /// Debian 13, containerd 1.7.
    #[default]
    Trixie,
    /// Debian 14 to be, containerd 2.x.
    Forky,
}

impl Suite {
    /// Its name in the archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}

/// The kernel that a node runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Kernel {
    /// Its Debian release's.
    #[default]
    Debian,
    /// Ours, with KVM's software-protected machines.
    Protected,
}

/// What a node is made of.
#[derive(Debug)]
pub struct Settings {
    /// Its Debian release.
    pub suite: Suite,
    /// Tells apart the nodes of one checkout and suite.
    pub name: String,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual processors; none for what the emulator's setting says.
    pub cpus: Option<u32>,
    /// The image for its second disk.
    pub payload: Option<PathBuf>,
    /// Its kernel.
    pub kernel: Kernel,
}

impl Settings {
    /// The default node of a suite, with this payload.
    pub fn new(suite: Suite, payload: Option<PathBuf>) -> Self {
        let (name, kernel) = ("default".into(), Kernel::default());
        Self { suite, name, memory_mib: 3072, cpus: None, payload, kernel }
    }
}

/// A node that is up, or was when it was looked at.
#[derive(Debug)]
pub struct Node {
    run: Run,
    state: State,
    shell: Shell,
}

impl Node {
    /// The node of these settings: the one that is up if it has the same payload, else a new one.
    ///
    /// # Errors
    /// Something it needs can't be installed or built, or it does not come up.
    pub fn up(settings: &Settings) -> Result<Self, Error> {
        Self::up_with(settings, &mut Progress::new(&STEPS))
    }

    /// As [`Node::up`], shown as the next three steps of a longer task.
    ///
    /// # Errors
    /// Those of [`Node::up`].
    pub fn up_with(settings: &Settings, progress: &mut Progress) -> Result<Self, Error> {
        let emulator = progress.step_with_note(|note| {
            image::packages()?;
            emulator::program(note)
        })?;
        let image = progress.step_with_note(|note| image::image(settings.suite, note))?;
        let kernel = match settings.kernel {
            Kernel::Debian => image.join("vmlinux"),
            // Shows steps of its own when there is something to build.
            Kernel::Protected => guest::protected_node_kernel()?,
        };
        progress.step(|| {
            let run = Run::open(settings.suite, &settings.name)?;
            let _lock = run.lock()?;
            if let Some(node) = Self::reuse(run.clone(), settings)? {
                return Ok(node);
            }
            run.clear()?;
            Self::start(run, settings, &emulator, &image, &kernel)
        })
    }

    fn start(
        run: Run,
        settings: &Settings,
        emulator: &Path,
        image: &Path,
        kernel: &Path,
    ) -> Result<Self, Error> {
        let began = Instant::now();
        run.take_keys(image)?;
        let state = emulator::start(&run, settings, emulator, image, kernel)?;
        // At once: should this process end early, `down` still finds QEMU.
        run.save(&state)?;
        let mut node = Self { shell: Shell::new(&run, &state), run, state };
        if let Err(why) = emulator::wait_until_ready(&node.run, START_LIMIT) {
            // Its console stays for whoever wants to know why, until `down`.
            emulator::stop(&node.run, &node.state)?;
            return Err(why);
        }
        node.shell.open().map_err(|why| node.diagnose(why))?;
        node.state.took_ms = u64::try_from(began.elapsed().as_millis()).ok();
        node.run.save(&node.state)?;
        Ok(node)
    }

    /// A node of these settings that nothing has run in; the one that is up is ended.
    ///
    /// # Errors
    /// Those of [`Node::up`].
    pub fn fresh(settings: &Settings) -> Result<Self, Error> {
        if let Some(old) = Self::open(Run::open(settings.suite, &settings.name)?)? {
            old.down()?;
        }
        Self::up(settings)
    }

    /// The node that is up already, if it is one of these settings; another one of the same name is ended.
    fn reuse(run: Run, settings: &Settings) -> Result<Option<Self>, Error> {
        let Some(node) = Self::open(run)? else { return Ok(None) };
        let same = settings.payload.is_none() || node.state.payload == settings.payload;
        if same && node.state.kernel == settings.kernel && node.health().is_none() {
            return Ok(Some(node));
        }
        node.end()?;
        Ok(None)
    }

    /// The node of this suite and name.
    ///
    /// # Errors
    /// [`Failure::NotUp`], or its folder can't be read.
    pub fn find(suite: Suite, name: &str) -> Result<Self, Error> {
        let run = Run::open(suite, name)?;
        Self::open(run)?.ok_or_else(|| Failure::NotUp { suite: suite.name(), name: name.to_owned() }.into())
    }

    fn open(run: Run) -> Result<Option<Self>, Error> {
        let state = run.load()?;
        Ok(state.map(|state| Self { shell: Shell::new(&run, &state), run, state }))
    }

    /// Runs a program in the node and returns its output and exit status.
    ///
    /// # Errors
    /// [`Failure::Died`] when the node is why it could not run; never for what the program itself returns.
    pub fn exec(&self, command: &[&str]) -> Result<Output, Error> {
        let output = self.shell.output(command)?;
        self.check(output.status)?;
        Ok(output)
    }

    /// Runs a program in the node with this process's stdin, stdout and stderr.
    ///
    /// # Errors
    /// Those of [`Node::exec`].
    pub fn run(&self, command: &[&str]) -> Result<ExitStatus, Error> {
        let status = self.shell.run(command)?;
        self.check(status)?;
        Ok(status)
    }

    /// Runs a program in the node and gives each line of its output to `line` when it comes.
    ///
    /// # Errors
    /// Those of [`Node::exec`].
    pub fn lines(&self, command: &[&str], line: impl FnMut(&str)) -> Result<ExitStatus, Error> {
        let status = self.shell.lines(command, line)?;
        self.check(status)?;
        Ok(status)
    }

    /// Copies a file or folder into the node, to the path `to`.
    ///
    /// # Errors
    /// It can't be read or written, or the node died.
    pub fn push(&self, from: &Path, to: &str) -> Result<(), Error> {
        self.shell.push(from, to).or_else(|why| self.check_transfer(why))
    }

    /// Copies a file or folder out of the node, to the path `to`.
    ///
    /// # Errors
    /// It can't be read or written, or the node died.
    pub fn pull(&self, from: &str, to: &Path) -> Result<(), Error> {
        self.shell.pull(from, to).or_else(|why| self.check_transfer(why))
    }

    /// Ends the node: no process and no file of it is left.
    ///
    /// # Errors
    /// It does not end, or its files can't be removed.
    pub fn down(self) -> Result<(), Error> {
        let _lock = self.run.lock()?;
        self.end()
    }

    fn end(&self) -> Result<(), Error> {
        self.shell.close();
        emulator::stop(&self.run, &self.state)?;
        self.run.clear()
    }

    /// Why the node is dead; none if it works.
    pub fn health(&self) -> Option<Death> {
        if let Some(death) = self.death() {
            return Some(death);
        }
        let works = self.shell.output(&["true"]).is_ok_and(|output| output.status.success());
        // A node that dies during the question has left its reason by now.
        if works { None } else { Some(self.death().unwrap_or(Death::Unreachable)) }
    }

    /// Why it is dead, as far as this is seen from outside.
    fn death(&self) -> Option<Death> {
        if let Some(line) = self.run.panic_line() {
            return Some(Death::Panicked { line });
        }
        let alive = emulator::alive(&self.run, &self.state);
        (!alive).then(|| Death::Exited { output: self.run.emulator_output() })
    }

    /// ssh says 255 for its own failures, and programs may say it, too.
    fn check(&self, status: ExitStatus) -> Result<(), Error> {
        if status.code() != Some(ssh::FAILED) {
            return Ok(());
        }
        self.health().map_or(Ok(()), |death| Err(self.died(death)))
    }

    fn check_transfer(&self, why: Error) -> Result<(), Error> {
        Err(self.diagnose(why))
    }

    /// The death of the node if it is dead, else the error itself.
    fn diagnose(&self, why: Error) -> Error {
        self.health().map_or(why, |death| self.died(death))
    }

    fn died(&self, death: Death) -> Error {
        Failure::Died { death, console: self.run.console_tail(), log: self.run.console() }.into()
    }
}
