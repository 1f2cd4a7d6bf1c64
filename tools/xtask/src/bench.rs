//! `cargo xtask bench`: measurements in the test node, beside those of others.

mod summary;

use std::fs;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cache;
use crate::error::Error;
use crate::node::{self, Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;
use summary::{Sample, summarize, table};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Starting a container, and one that does nothing: time, memory, CPU.
    Start {
        /// Runs of what takes a start.
        #[arg(long, default_value_t = 20)]
        runs: u32,
        /// Runs of what takes an idle container.
        #[arg(long, default_value_t = 3)]
        idle_runs: u32,
    },
    /// Pods through CRI: start to first output, exec, deletion, throughput, memory of ten that idle.
    Pods {
        /// Runs of one pod.
        #[arg(long, default_value_t = 10)]
        runs: u32,
        /// Runs of ten pods at once.
        #[arg(long, default_value_t = 2)]
        crowds: u32,
    },
    /// A measured start through stage0 beside a direct one: what is measured, and where the time goes.
    Launch {
        /// Starts of each kind.
        #[arg(long, default_value_t = 10)]
        runs: u32,
    },
}

const MEASURE: &str = "measurements";

/// Measures, prints a table and writes `target/bench/start.json`, `pods.json` or `launch.json`.
///
/// # Errors
/// A part of the set-up or a measurement fails.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let (name, command) = match arguments.what {
        What::Start { runs, idle_runs } => {
            let (runs, idle_runs) = (runs.to_string(), idle_runs.to_string());
            let words = ["/payload/bin/nacre-tests", "bench", "--runs", &runs, "--idle-runs", &idle_runs];
            ("start", words.map(str::to_owned).to_vec())
        }
        What::Pods { runs, crowds } => {
            let (runs, crowds) = (runs.to_string(), crowds.to_string());
            let words = ["/payload/bin/nacre-tests", "bench-pods", "--runs", &runs, "--idle-runs", &crowds];
            ("pods", words.map(str::to_owned).to_vec())
        }
        What::Launch { runs } => {
            let words = ["/payload/bin/nacre-machine-tests", "bench", &runs.to_string()];
            ("launch", words.map(str::to_owned).to_vec())
        }
    };
    let names: Vec<&'static str> = [&payload::STEPS[..], &node::STEPS, &[MEASURE]].concat();
    let mut progress = Progress::new(&names);
    let payload = payload::build(&mut progress)?;
    let node = Node::up_with(&Settings::new(Suite::default(), Some(payload)), &mut progress)?;
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut samples: Vec<Sample> = Vec::new();
    let status = progress.step_with_note(|note| {
        node.lines(&command, |line| {
            if let Ok(sample) = serde_json::from_str(line) {
                samples.push(sample);
                note.set(format!("{} samples", samples.len()));
            }
        })
    })?;
    if !status.success() {
        return Err(Error::Task(format!("the measurements in the node ended with {status}")));
    }
    let rows = summarize(&samples);
    let folder = cache::checkout().join("target/bench");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&rows)
        .map_err(|error| Error::Task(format!("the results can't be written as JSON: {error}")))?;
    fs::write(&path, text + "\n").map_err(Error::file("can't write", &path))?;
    println!("\n{}", table(&rows));
    println!("also in {}", path.display());
    Ok(ExitCode::SUCCESS)
}
