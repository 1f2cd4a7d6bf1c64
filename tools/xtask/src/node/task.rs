//! `cargo xtask node`.

use std::fs::File;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use clap::Subcommand;

use super::run::Run;
use super::{Kernel, Node, Settings, Suite, soak};
use crate::error::Error;
use crate::payload;
use crate::progress::{Progress, seconds};

/// Arguments of `cargo xtask node`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Debian release it runs.
    #[arg(long, global = true, value_enum, default_value_t)]
    suite: Suite,
    /// Which of several nodes of this checkout; NACRE_NODE is the default.
    #[arg(long, global = true)]
    name: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Starts the node, and builds what is missing for it.
    Up {
        /// Without our programs: Debian and containerd only.
        #[arg(long)]
        bare: bool,
        /// Memory in MiB.
        #[arg(long, default_value_t = 3072)]
        memory: u32,
        /// Virtual processors.
        #[arg(long)]
        cpus: Option<u32>,
        /// The kernel it runs.
        #[arg(long, value_enum, default_value_t)]
        kernel: Kernel,
    },
    /// Runs a program in it, with stdin, stdout, stderr and exit status.
    Exec {
        /// The program and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copies a file or folder into it.
    Push {
        /// On this machine.
        from: PathBuf,
        /// In the node.
        to: String,
    },
    /// Copies a file or folder out of it.
    Pull {
        /// In the node.
        from: String,
        /// On this machine.
        to: PathBuf,
    },
    /// Shows what its kernel and services wrote to the console.
    Console {
        /// Goes on until the node ends.
        #[arg(short, long)]
        follow: bool,
    },
    /// Starts virtual machines in it, two at a time, and says how many it survived.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 120)]
        minutes: u64,
    },
    /// Ends it and removes what it wrote.
    Down,
    /// Says whether it is up, and how it runs.
    Status,
}

/// Runs the task.
///
/// # Errors
/// Those of [`Node`].
pub fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { suite, name, action } = arguments;
    let name = name.or_else(|| std::env::var("NACRE_NODE").ok()).unwrap_or_else(|| "default".into());
    match action {
        Action::Up { bare, memory, cpus, kernel } => {
            let settings = Settings { suite, name, memory_mib: memory, cpus, payload: None, kernel };
            println!("{}", up(settings, bare)?.describe());
        }
        Action::Exec { command } => {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let status = Node::find(suite, &name)?.run(&command)?;
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        Action::Push { from, to } => Node::find(suite, &name)?.push(&from, &to)?,
        Action::Pull { from, to } => Node::find(suite, &name)?.pull(&from, &to)?,
        Action::Console { follow } => console(suite, &name, follow)?,
        Action::Soak { minutes } => soak::run(&Node::find(suite, &name)?, Duration::from_secs(minutes * 60))?,
        Action::Down => match Node::find(suite, &name) {
            Ok(node) => node.down()?,
            Err(Error::Node(super::Failure::NotUp { .. })) => println!("not up"),
            Err(why) => return Err(why),
        },
        Action::Status => return status(suite, &name),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(settings: Settings, bare: bool) -> Result<Node, Error> {
    if bare {
        return Node::up(&settings);
    }
    let steps: Vec<&'static str> = payload::STEPS.into_iter().chain(super::STEPS).collect();
    let mut progress = Progress::new(&steps);
    let payload = Some(payload::build(&mut progress)?);
    Node::up_with(&Settings { payload, ..settings }, &mut progress)
}

fn console(suite: Suite, name: &str, follow: bool) -> Result<(), Error> {
    let run = Run::open(suite, name)?;
    let path = run.console();
    if follow {
        let node = Node::find(suite, name)?;
        let mut tail = Command::new("tail");
        // Ends with QEMU.
        tail.args(["--lines=+1", "--follow", &format!("--pid={}", node.state.pid)]).arg(&path);
        return tail.status().map(|_| ()).map_err(|source| Error::Start { program: "tail".into(), source });
    }
    let mut file = File::open(&path).map_err(Error::file("can't read", &path))?;
    let mut out = stdout().lock();
    std::io::copy(&mut file, &mut out).and_then(|_| out.flush()).map_err(Error::file("can't show", &path))
}

fn status(suite: Suite, name: &str) -> Result<ExitCode, Error> {
    match Node::find(suite, name) {
        Ok(node) => {
            if let Some(death) = node.health() {
                println!("dead: {death}");
                return Ok(ExitCode::FAILURE);
            }
            println!("{}", node.describe());
            Ok(ExitCode::SUCCESS)
        }
        Err(Error::Node(super::Failure::NotUp { .. })) => {
            println!("down");
            Ok(ExitCode::FAILURE)
        }
        Err(why) => Err(why),
    }
}

impl Node {
    fn describe(&self) -> String {
        let state = &self.state;
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(state.started);
        let up = SystemTime::now().duration_since(started).unwrap_or_default();
        let payload = state.payload.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string());
        format!(
            "up for {}, came up in {}\nQEMU: process {}, {}\nssh: port {} on loopback\npayload: {payload}\nimage: {}",
            seconds(up),
            state.took_ms.map_or_else(|| "unknown time".into(), |took| seconds(Duration::from_millis(took))),
            state.pid,
            state.setting,
            state.port,
            state.image.display(),
        )
    }
}
