//! `cargo xtask test cri`: the suite of pods through CRI, on both containerds, with runc and nacre side by side. With nacre on
//! one containerd it is among all checks.

mod results;

use std::fs;

use super::inside::down;
use super::runner;
use super::summary::{Outcome, Summary};
use crate::cache;
use crate::error::{self, Error};
use crate::node::{Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;
use results::{Row, table};

const RUNNER: &str = "/payload/bin/nacre-tests";

/// The node's memory, which has to hold thirty machines at once.
const MEMORY_MIB: u32 = 5120;

/// A runtime under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// Whose results check the suite itself.
    Runc,
    /// Ours.
    Nacre,
}

impl Runtime {
    fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Nacre => "nacre",
        }
    }
}

/// Arguments of `cargo xtask test cri`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only this runtime; both by default.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// Only the containerd of this Debian release; both by default.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Only the tests whose name contains this; a name begins with its group.
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the suite with nacre on one containerd, as a part of all checks. What keeps it from running is a failure in the
/// summary.
pub fn with_nacre(summary: &mut Summary, suite: Suite, filter: Option<&str>) {
    let filter = filter.map(str::to_owned);
    let rows = rows(summary, &Arguments { runtime: Some(Runtime::Nacre), suite: Some(suite), filter });
    rows.into_iter().for_each(|row| row.count(summary));
}

/// Runs the suite, prints its table and writes `target/test/cri.json`. What keeps it from running is a failure in the
/// summary.
pub fn tests(summary: &mut Summary, arguments: &Arguments) {
    let rows = rows(summary, arguments);
    if !rows.is_empty()
        && let Err(why) = write(&rows)
    {
        failed(summary, &why);
    }
    println!("\n{}", table(&rows));
    rows.into_iter().for_each(|row| row.count(summary));
}

/// How the tests ended; all that did when something keeps the others from running.
fn rows(summary: &mut Summary, arguments: &Arguments) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Err(why) = run(&mut rows, arguments) {
        failed(summary, &why);
    }
    rows
}

fn failed(summary: &mut Summary, why: &Error) {
    error::print_chain(why);
    summary.add("CRI suite", Outcome::Failed(error::chain(why)));
}

fn run(rows: &mut Vec<Row>, arguments: &Arguments) -> Result<(), Error> {
    let mut progress = Progress::new(&payload::STEPS);
    let payload = payload::build(&mut progress)?;
    let suites = arguments.suite.map_or(vec![Suite::Trixie, Suite::Forky], |suite| vec![suite]);
    let runtimes = arguments.runtime.map_or(vec![Runtime::Runc, Runtime::Nacre], |runtime| vec![runtime]);
    let filter = arguments.filter.as_deref();
    for suite in suites {
        let settings = Settings { memory_mib: MEMORY_MIB, ..Settings::new(suite, Some(payload.clone())) };
        let ran = runtimes.iter().try_for_each(|runtime| with_runtime(rows, &settings, *runtime, filter));
        ran.and(down(&settings))?;
    }
    Ok(())
}

fn with_runtime(
    rows: &mut Vec<Row>,
    settings: &Settings,
    runtime: Runtime,
    filter: Option<&str>,
) -> Result<(), Error> {
    let id = format!("io.containerd.{}.v2", runtime.name());
    let node = Node::fresh(settings)?;
    let containerd = version(&node)?;
    runner::run(&node, &[RUNNER, "cri", "--runtime", &id], filter, |name, outcome| {
        rows.push(Row::new(&name, &containerd, runtime.name(), outcome));
    })
}

/// The version of the node's containerd.
fn version(node: &Node) -> Result<String, Error> {
    let output = node.exec(&["containerd", "--version"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let number = number.and_then(|word| word.split(['~', '+', '-']).next());
    number.map(str::to_owned).ok_or_else(|| Error::Task(format!("containerd --version says {text:?}")))
}

fn write(rows: &[Row]) -> Result<(), Error> {
    let folder = cache::checkout().join("target/test");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    let path = folder.join("cri.json");
    let text = serde_json::to_string_pretty(rows)
        .map_err(|error| Error::Task(format!("the results can't be written as JSON: {error}")))?;
    fs::write(&path, text + "\n").map_err(Error::file("can't write", &path))?;
    println!("results in {}", path.display());
    Ok(())
}
