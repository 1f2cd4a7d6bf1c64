//! Measurements of starting containers, for `cargo xtask bench start`: one line of JSON for each sample.
//!
//! Nothing here passes or fails. Runs of the subjects alternate, so that what else the machine does hits all alike.

mod idle;
mod memory;
mod microvm;
pub mod pods;
mod processes;
mod start;

use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::options::{Measuring, NACRE, RUNC};

/// Runs before the first sample: they fill caches.
const WARM_UPS: u32 = 2;

/// One measured value.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// What was measured.
    pub metric: &'static str,
    /// Of what.
    pub subject: &'static str,
    /// The value's unit.
    pub unit: &'static str,
    /// The value.
    pub value: f64,
}

/// A runtime that is measured.
#[derive(Debug, Clone, Copy)]
struct Subject {
    name: &'static str,
    runtime: &'static str,
}

const SUBJECTS: [Subject; 2] =
    [Subject { name: "nacre", runtime: NACRE }, Subject { name: "runc", runtime: RUNC }];

/// Measures everything and prints the samples as they come. What can't be measured is said on standard error.
///
/// # Errors
/// A container does not run.
pub fn run(measuring: &Measuring) -> Result<(), Failure> {
    let context = Context::new(&measuring.options, "bench");
    for number in 0..measuring.runs + WARM_UPS {
        let warm_up = number < WARM_UPS;
        for subject in SUBJECTS {
            let samples = start::measure(&context, subject, number)?;
            print_unless(warm_up, samples);
        }
        match microvm::measure() {
            Ok(sample) => print_unless(warm_up, vec![sample]),
            Err(failure) => eprintln!("qemu-microvm: {}", chain(&failure)),
        }
    }
    for number in 0..measuring.idle_runs {
        for subject in SUBJECTS {
            print_unless(false, idle::measure(&context, subject, number, measuring.idle_seconds)?);
        }
    }
    Ok(())
}

fn print_unless(warm_up: bool, samples: Vec<Sample>) {
    for sample in samples.into_iter().filter(|_| !warm_up) {
        match serde_json::to_string(&sample) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("a sample can't be written: {error}"),
        }
    }
}
