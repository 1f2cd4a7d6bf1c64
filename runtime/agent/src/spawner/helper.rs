//! A helper: fulfils one order in a process of its own, then ends.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{Pid, pause};

use super::executor::ReportingExecutor;
use super::order::{CreateOrder, Order, Problem, Report, Stdio};
use super::trace::Reporter;
use super::{fork, receive, tenant};
use crate::error::chain;

/// A process that was made, and its terminal.
pub(super) type Made = Result<(Pid, Option<OwnedFd>), Problem>;

/// Fulfils the order and stays the parent of the new process until the agent has registered it.
pub(super) fn run(report: &OwnedFd, body: OwnedFd, stdio: Stdio, init: Option<OwnedFd>) {
    let _ = tracing::subscriber::set_global_default(Reporter { socket: report.as_raw_fd() });
    let order = match Order::from_file(body) {
        Ok(order) => order,
        Err(error) => return refuse(report, format!("can't read the order: {error}")),
    };
    let made = match (order, init) {
        (Order::Create(order), _) => create(report, &order, stdio),
        (Order::Exec(order), Some(init)) => tenant::spawn(report, &order, &init, stdio),
        (Order::Exec(_), None) => Err(Problem::Other("an exec without its container".into())),
        (Order::HoldPidNamespace, _) => hold_pid_namespace(),
    };
    match made {
        Ok((pid, terminal)) => {
            Report::Born { pid: pid.as_raw() }.send(report.as_raw_fd(), terminal.as_ref());
            drop(terminal);
            let mut word = [0u8; 2];
            let released =
                recv(report.as_raw_fd(), &mut word, MsgFlags::empty()).is_ok_and(|length| length > 0);
            if !released {
                // Nobody knows this process and nobody ever will.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        Err(problem) => Report::Failed(problem).send(report.as_raw_fd(), None),
    }
}

/// Tells the agent that its order can't be fulfilled.
pub(super) fn refuse(report: &OwnedFd, why: String) {
    Report::Failed(Problem::Other(why)).send(report.as_raw_fd(), None);
}

fn create(report: &OwnedFd, order: &CreateOrder, stdio: Stdio) -> Made {
    let other = |error: &dyn std::fmt::Display| Problem::Other(error.to_string());
    fs::create_dir_all(&order.state).map_err(|error| other(&error))?;
    let mut builder = ContainerBuilder::new(order.id.clone(), SyscallType::default())
        .with_root_path(&order.state)
        .map_err(|error| other(&error))?
        .with_executor(ReportingExecutor { reports: report.as_raw_fd() });
    let console = match stdio {
        Stdio::Streams([stdin, stdout, stderr]) => {
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
            None
        }
        Stdio::Terminal => {
            let path = order.state.join(format!("{}.console", order.id));
            let console = Console::listen(&path).map_err(|error| other(&error))?;
            builder = builder.with_console_socket(Some(path));
            Some(console)
        }
    };
    let made = builder.as_init(&order.bundle).with_systemd(false).with_detach(true).build();
    let container = made.map_err(|error| Problem::Other(chain(&error)))?;
    let pid = container.pid().ok_or_else(|| Problem::Other("libcontainer names no process".into()))?;
    let terminal = console.map(Console::terminal).transpose().map_err(|error| other(&error))?;
    Ok((Pid::from_raw(pid.as_raw()), terminal))
}

fn hold_pid_namespace() -> Made {
    let other = |error: nix::Error| Problem::Other(error.to_string());
    unshare(CloneFlags::CLONE_NEWPID).map_err(other)?;
    match super::fork_child().map_err(|error| Problem::Other(error.to_string()))? {
        Some(pid) => Ok((pid, None)),
        None => {
            // Processes that lose their parent inside become this one's children.
            let _ = fork::set_handler(Signal::SIGCHLD, SigHandler::SigIgn);
            loop {
                pause();
            }
        }
    }
}

/// The socket over which libcontainer hands out the master of a new terminal.
struct Console {
    listener: UnixListener,
}

impl Console {
    fn listen(path: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        Ok(Self { listener })
    }

    /// The terminal, which libcontainer has sent before it says that the container is made.
    fn terminal(self) -> std::io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        master_from(stream.as_raw_fd())
    }
}

/// Receives the master of a terminal.
pub(super) fn master_from(socket: std::os::fd::RawFd) -> std::io::Result<OwnedFd> {
    receive(socket)?
        .and_then(|(_, mut fds)| fds.pop())
        .ok_or_else(|| std::io::Error::other("the process ended without making its terminal"))
}
