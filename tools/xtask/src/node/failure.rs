//! What is wrong with a node, apart from what a program in it reports.

use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a node. A failed test is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such node.
    #[error("the {suite} node \"{name}\" is not up; `cargo xtask node up` starts it")]
    NotUp {
        /// Its suite.
        suite: &'static str,
        /// Its name.
        name: String,
    },
    /// Another task starts or ends this node right now.
    #[error("process {holder} is starting or ending this node")]
    Busy {
        /// Its process.
        holder: String,
    },
    /// It was up and is dead.
    #[error("the test node died, no test failed: {death}; the end of its console ({log}):\n{console}")]
    Died {
        /// How.
        death: Death,
        /// The last lines of its console.
        console: String,
        /// The whole console.
        log: PathBuf,
    },
    /// It started, and did not come as far as it should.
    #[error("the test node did not come up in {} s: {said}; the end of its console ({log}):\n{console}", .limit.as_secs())]
    NotReady {
        /// How long it had.
        limit: Duration,
        /// What it said instead of that it is ready.
        said: String,
        /// The last lines of its console.
        console: String,
        /// The whole console.
        log: PathBuf,
    },
}

/// How a node died.
#[derive(Debug, thiserror::Error)]
pub enum Death {
    /// Its kernel panicked.
    #[error("its kernel panicked ({line})")]
    Panicked {
        /// The kernel's line.
        line: String,
    },
    /// QEMU is gone.
    #[error("QEMU ended{}{output}", if .output.is_empty() { "" } else { " and said: " })]
    Exited {
        /// What QEMU wrote.
        output: String,
    },
    /// QEMU runs, and nothing answers inside.
    #[error("it does not answer ssh any more")]
    Unreachable,
}
