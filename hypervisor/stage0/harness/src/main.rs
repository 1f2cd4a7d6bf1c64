//! Runs the real stage0 on KVM, against a model of what SEV-SNP and TDX do.
//!
//! No processor here has either. But all of their instructions that stage0 uses have four bytes: they are replaced by
//! port writes, at which KVM stops, and the model answers in the registers. Private and shared memory are at different
//! addresses, apart by the bit that marks them in page tables, so that a forgotten bit leads nowhere. A page that is
//! not in use can't be touched: the harness takes its memory away. Everything else, from the reset vector to the
//! kernel's entry, is stage0 as it is shipped.
//!
//! `nacre-stage0-harness --stage0 stage0.bin` runs all cases, each as a process of its own, and prints `PASS`, `FAIL`
//! or `SKIP` for each.

mod cases;
mod checks;
mod cpu;
mod error;
mod image;
mod launch;
mod machine;
mod model;
mod runner;
mod unsafe_memory;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs stage0 against a model of SEV-SNP and TDX.
#[derive(Debug, Parser)]
struct Arguments {
    /// stage0's flat image, as `cargo xtask stage0` builds it.
    #[arg(long)]
    stage0: PathBuf,
    /// Run one case in this process and say how it ended.
    #[arg(long, hide = true)]
    one: bool,
    /// Only cases whose name contains this.
    filter: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let result = if arguments.one {
        runner::one(&arguments.stage0, filter).map(|()| true)
    } else {
        runner::all(&arguments.stage0, filter)
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}
