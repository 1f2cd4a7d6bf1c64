//! The suites that run inside the test node, as root, through containerd.
//!
//! `nacre-tests run` runs every test against one runtime. The same tests run against runc, which checks the tests
//! themselves: what fails there is wrong in the test. Each test is a process of its own with a deadline; its
//! containers carry its name, so that what it leaves behind is found, reported and removed.

mod bench;
mod cases;
mod commands;
mod containerd;
mod context;
mod cri;
mod disturbance;
mod events;
mod failure;
mod launch;
mod leftovers;
mod listing;
mod options;
mod patience;
mod pattern;
mod process;
mod runner;
mod task;
mod terminal;
mod timeline;
mod wait;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(options::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", failure::chain(&error));
            ExitCode::FAILURE
        }
    }
}
