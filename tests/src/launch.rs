//! Starting a container with `ctr`, and with what `ctr` has no option for.

use std::process::{ChildStdout, Command};
use std::time::Duration;

use serde_json::Value;

use crate::containerd;
use crate::context::Context;
use crate::failure::{Failure, wrong};
use crate::process::{self, Finished, PATIENCE, Running};
use crate::task::Task;
use crate::terminal::Terminal;

/// The image with busybox and the probe.
pub const BUSYBOX: &str = "nacre.test/busybox:1";

/// A container that is going to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    context: &'a Context,
    id: String,
    image: String,
    flags: Vec<String>,
    command: Vec<String>,
    specification: Option<fn(&mut Value)>,
    patience: Duration,
}

impl<'a> Launch<'a> {
    /// Of the busybox image, with what the image says.
    pub fn new(context: &'a Context, name: &str) -> Self {
        Self {
            context,
            id: context.id(name),
            image: BUSYBOX.to_owned(),
            flags: Vec::new(),
            command: Vec::new(),
            specification: None,
            patience: PATIENCE,
        }
    }

    /// Of this image.
    pub fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// With these options of `ctr run`.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// With this program and its arguments.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With a shell that runs this script.
    pub fn script(self, script: &str) -> Self {
        self.command(&["sh", "-c", script])
    }

    /// With the specification that `edit` makes of `ctr`'s.
    pub fn specification(mut self, edit: fn(&mut Value)) -> Self {
        self.specification = Some(edit);
        self
    }

    /// With more time than other containers.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end, with nothing on its standard input.
    ///
    /// # Errors
    /// `ctr` can't be started, or it runs for too long.
    pub fn run(self) -> Result<Finished, Failure> {
        let patience = self.patience;
        let mut running = self.start()?;
        running.close_stdin();
        running.finish(patience)
    }

    /// Starts it with its three streams joined to this process.
    ///
    /// # Errors
    /// `ctr` can't be started.
    pub fn start(self) -> Result<Running, Failure> {
        Running::start(&mut self.attached(&[])?)
    }

    /// As [`Launch::start`], but nobody reads its standard output except the caller.
    ///
    /// # Errors
    /// `ctr` can't be started.
    pub fn start_unread(self) -> Result<(Running, ChildStdout), Failure> {
        Running::start_unread(&mut self.attached(&[])?)
    }

    /// Starts it with a terminal of this size.
    ///
    /// # Errors
    /// `ctr` can't be started or there is no terminal to be had.
    pub fn terminal(self, rows: u16, columns: u16) -> Result<Terminal, Failure> {
        Terminal::start(&mut self.attached(&["--tty"])?, rows, columns)
    }

    /// Starts it in the background, with no streams; returns when it runs.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn detach(self) -> Result<Task, Failure> {
        let patience = self.patience;
        let task = Task::new(self.context, &self.id);
        let mut command = match self.specification {
            Some(_) => {
                self.create()?;
                self.ctr(&["task", "start", "--detach", "--null-io"], std::slice::from_ref(&self.id))
            }
            None => self.ctr(&["run", "--detach", "--null-io"], &self.arguments()),
        };
        let mut running = Running::start(&mut command)?;
        running.close_stdin();
        running.finish(patience)?.exited(0)?;
        Ok(task)
    }

    /// Makes the container's record, and starts nothing.
    ///
    /// # Errors
    /// `ctr` or containerd refuses it.
    pub fn create(&self) -> Result<(), Failure> {
        process::run(&mut self.ctr(&["container", "create"], &self.arguments()))?.exited(0)?;
        if let Some(edit) = self.specification {
            let info = self.context.run_ctr(&["container", "info", &self.id])?.exited(0)?.stdout;
            let mut record: Value =
                serde_json::from_str(&info).map_err(Failure::other("ctr container info prints no JSON"))?;
            match record.get_mut("Spec") {
                Some(specification) => edit(specification),
                None => return wrong(format!("ctr container info has no specification: {info}")),
            }
            containerd::update_specification(&self.context.options, &self.id, &record)?;
        }
        Ok(())
    }

    fn attached(&self, more: &[&str]) -> Result<Command, Failure> {
        if self.specification.is_some() {
            self.create()?;
            return Ok(self.ctr(&["task", "start"], std::slice::from_ref(&self.id)));
        }
        let words: Vec<&str> = ["run", "--rm"].into_iter().chain(more.iter().copied()).collect();
        Ok(self.ctr(&words, &self.arguments()))
    }

    fn ctr(&self, words: &[&str], arguments: &[String]) -> Command {
        let mut ctr = self.context.ctr();
        ctr.args(words).args(arguments);
        ctr
    }

    fn arguments(&self) -> Vec<String> {
        let mut words = vec!["--runtime".to_owned(), self.context.options.runtime.clone()];
        words.extend(self.flags.iter().cloned());
        words.extend([self.image.clone(), self.id.clone()]);
        words.extend(self.command.iter().cloned());
        words
    }
}
