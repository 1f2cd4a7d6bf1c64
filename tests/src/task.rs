//! A container that runs in the background.

use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::failure::{Failure, Outcome, check, wrong};
use crate::process::{self, Finished, Running};
use crate::wait::{SECONDS, eventually};

/// A running container, known by its name.
#[derive(Debug, Clone)]
pub struct Task {
    context: Context,
    /// The container's name.
    pub id: String,
}

impl Task {
    /// The task of this container.
    pub fn new(context: &Context, id: &str) -> Self {
        Self { context: context.clone(), id: id.to_owned() }
    }

    /// `ctr task exec` of a command, to be run or started.
    pub fn exec_command(&self, name: &str, flags: &[&str], command: &[&str]) -> Command {
        let mut ctr = self.context.ctr();
        ctr.args(["task", "exec", "--exec-id", name]).args(flags).arg(&self.id).args(command);
        ctr
    }

    /// Runs a command in the container to its end.
    ///
    /// # Errors
    /// `ctr` can't be started or takes too long.
    pub fn exec(&self, name: &str, command: &[&str]) -> Result<Finished, Failure> {
        process::run(&mut self.exec_command(name, &[], command))
    }

    /// Starts a command in the container.
    ///
    /// # Errors
    /// `ctr` can't be started.
    pub fn start_exec(&self, name: &str, command: &[&str]) -> Result<Running, Failure> {
        Running::start(&mut self.exec_command(name, &[], command))
    }

    /// Sends a signal, with more options of `ctr task kill`.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn kill(&self, signal: &str, flags: &[&str]) -> Outcome {
        self.kill_command(signal, flags)?.exited(0).map(|_| ())
    }

    /// As [`Task::kill`], with its result for the caller to judge.
    ///
    /// # Errors
    /// `ctr` can't be started or takes too long.
    pub fn kill_command(&self, signal: &str, flags: &[&str]) -> Result<Finished, Failure> {
        process::run(self.context.ctr().args(["task", "kill", "--signal", signal]).args(flags).arg(&self.id))
    }

    /// What containerd says of it: RUNNING, STOPPED, PAUSED; none if it knows no such task.
    ///
    /// # Errors
    /// `ctr` fails.
    pub fn status(&self) -> Result<Option<String>, Failure> {
        Ok(self.context.row(&["task", "ls"], &self.id)?.and_then(|row| row.get(2).cloned()))
    }

    /// Waits until containerd says this of it.
    ///
    /// # Errors
    /// It doesn't, within seconds.
    pub fn wait_for(&self, wanted: &str) -> Outcome {
        eventually(SECONDS, || match self.status()? {
            Some(status) if status == wanted => Ok(()),
            other => wrong(format!("{} is {other:?}, wanted {wanted}", self.id)),
        })
    }

    /// Deletes the task and returns the exit status of its process.
    ///
    /// # Errors
    /// containerd refuses, or it takes long.
    pub fn delete(&self) -> Result<i32, Failure> {
        let deleted = self.context.run_ctr(&["task", "delete", &self.id])?;
        // A status that is not zero is also logged; errors start with the program's name.
        check(!deleted.stderr.starts_with("ctr:"), || format!("{}: {}", deleted.line, deleted.stderr))?;
        check(deleted.took < Duration::from_secs(20), || {
            format!("{} took {} s", deleted.line, deleted.took.as_secs())
        })?;
        // ctr has told the status in its log since containerd 1.7, by its own exit status before.
        let told =
            deleted.stderr.rsplit_once("exit code ").map(|(_, rest)| rest.trim_matches(['"', '\n', ' ']));
        Ok(told.and_then(|code| code.parse().ok()).unwrap_or(deleted.code))
    }

    /// Kills it, and deletes task and container.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn end(&self) -> Outcome {
        for words in [&["task", "delete", "--force", &self.id][..], &["container", "delete", &self.id]] {
            let deleted = self.context.run_ctr(words)?;
            check(!deleted.stderr.starts_with("ctr:"), || format!("{}: {}", deleted.line, deleted.stderr))?;
        }
        Ok(())
    }
}
