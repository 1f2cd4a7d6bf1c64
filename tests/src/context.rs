//! What a test is given: containerd, the runtime under test, and names that are its own.

use std::process::Command;

use crate::failure::{Failure, wrong};
use crate::launch::Launch;
use crate::options::Options;
use crate::process::{self, Finished};

/// A test's view of the node.
#[derive(Debug, Clone)]
pub struct Context {
    /// What the command line says.
    pub options: Options,
    test: String,
}

impl Context {
    /// For the test of this name.
    pub fn new(options: &Options, test: &str) -> Self {
        Self { options: options.clone(), test: test.to_owned() }
    }

    /// The test's name.
    pub fn test(&self) -> &str {
        &self.test
    }

    /// The same test with another runtime, for comparison.
    pub fn with_runtime(&self, runtime: &str) -> Self {
        let mut this = self.clone();
        runtime.clone_into(&mut this.options.runtime);
        this
    }

    /// What the names of all containers of this test start with.
    pub fn prefix(&self) -> String {
        prefix(&self.test)
    }

    /// The name of a container of this test.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// `ctr` in the tests' namespace.
    pub fn ctr(&self) -> Command {
        ctr(&self.options)
    }

    /// Runs `ctr` with these words.
    ///
    /// # Errors
    /// It can't be started or takes too long.
    pub fn run_ctr(&self, words: &[&str]) -> Result<Finished, Failure> {
        process::run(self.ctr().args(words))
    }

    /// A container of the busybox image, to be described further and started.
    pub fn container(&self, name: &str) -> Launch<'_> {
        Launch::new(self, name)
    }

    /// A line of `ctr`'s output with this word in its first column, as words.
    ///
    /// # Errors
    /// `ctr` fails.
    pub fn row(&self, words: &[&str], first: &str) -> Result<Option<Vec<String>>, Failure> {
        let table = self.run_ctr(words)?.exited(0)?.stdout;
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&first));
        Ok(row.map(|row| row.into_iter().map(str::to_owned).collect()))
    }

    /// Fails with the reason why this test can't run here.
    ///
    /// # Errors
    /// Always.
    pub fn cannot_run<T>(&self, why: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::CannotRun(why.into()))
    }

    /// Fails unless containerd has nothing under this name.
    ///
    /// # Errors
    /// It has.
    pub fn gone(&self, id: &str) -> Result<(), Failure> {
        for words in [["task", "ls"], ["container", "ls"], ["snapshot", "ls"]] {
            if self.row(&words, id)?.is_some() {
                return wrong(format!("ctr {} still shows {id}", words.join(" ")));
            }
        }
        Ok(())
    }
}

/// `ctr` in the tests' namespace.
pub fn ctr(options: &Options) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.args(["--namespace", &options.namespace]);
    ctr
}

/// What the names of all containers of a test start with. The dot keeps one test's names from being the start of
/// another's.
pub fn prefix(test: &str) -> String {
    format!("{test}.")
}
