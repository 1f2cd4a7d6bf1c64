//! `nacre console`: what a guest's kernel says, and a shell where that is allowed.

mod shell;

use std::process::ExitCode;

use nacre_operator::Call;

use crate::chain;
use crate::logs::{is_about_the_guest, print};
use crate::pods::{Pod, PodError, Wanted};
use crate::printable;

/// Options of `nacre console`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Waits for more
    #[arg(long, short)]
    follow: bool,
    /// Shows what the guest printed last, by the VMM: also of a guest that hangs
    #[arg(long, conflicts_with = "follow")]
    last: bool,
    /// Starts a shell in a container of the pod. The configuration must allow it (operator.shell), and the machine must
    /// not be confidential
    #[arg(long, conflicts_with_all = ["follow", "last"])]
    shell: bool,
    /// The container for the shell, by its id; not needed if only one runs
    #[arg(long, requires = "shell")]
    container: Option<String>,
    /// The shell's program and arguments
    #[arg(long, requires = "shell", num_args = 1.., default_values_t = ["/bin/sh".to_owned()])]
    command: Vec<String>,
}

/// Prints the messages, or runs the shell. The exit status is the shell's.
///
/// # Errors
/// There is no such pod, or neither guest nor VMM have something to say.
pub fn run(arguments: Arguments) -> Result<ExitCode, PodError> {
    let pod = arguments.wanted.find()?;
    if arguments.shell {
        return shell::run(&pod, arguments.container, arguments.command);
    }
    if arguments.last {
        last(&pod)?;
        return Ok(ExitCode::SUCCESS);
    }
    let messages = pod
        .ask(Call::Kernel { follow: arguments.follow })
        .map_err(PodError::from)
        .and_then(|connection| print(connection, arguments.follow, printable::text));
    match messages {
        Err(error) if is_about_the_guest(&error) => {
            eprintln!("nacre: {}; this is what the guest printed last:", chain(&error));
            last(&pod)?;
        }
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

fn last(pod: &Pod) -> Result<(), PodError> {
    print(pod.ask(Call::Console)?, false, printable::text)
}
