//! `cargo xtask test cri`: the suite of pods through CRI, on both containerds, with runc and nacre side by side.

mod results;

use std::fs;

use super::inside::outcome;
use super::summary::{Outcome, Summary};
use crate::cache;
use crate::error::{self, Error};
use crate::node::{Failure, Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;
use results::{Row, table};

/// Nodes that the suite may use up with one runtime: emulated nodes die at times.
const NODES: usize = 4;

const RUNNER: &str = "/payload/bin/nacre-tests";

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

/// Runs the suite, prints its table and writes `target/test/cri.json`. What keeps it from running is a failure in the
/// summary.
pub fn tests(summary: &mut Summary, arguments: &Arguments) {
    let mut rows = Vec::new();
    let ran = run(&mut rows, summary, arguments);
    let written = if rows.is_empty() { Ok(()) } else { write(&rows) };
    if let Err(why) = ran.and(written) {
        error::print_chain(&why);
        summary.add("CRI suite", Outcome::Failed(error::chain(&why)));
    }
    println!("\n{}", table(&rows));
    for row in rows {
        row.count(summary);
    }
}

fn run(rows: &mut Vec<Row>, summary: &mut Summary, arguments: &Arguments) -> Result<(), Error> {
    let mut progress = Progress::new(&payload::STEPS);
    let payload = payload::build(&mut progress)?;
    let suites = arguments.suite.map_or(vec![Suite::Trixie, Suite::Forky], |suite| vec![suite]);
    let runtimes = arguments.runtime.map_or(vec![Runtime::Runc, Runtime::Nacre], |runtime| vec![runtime]);
    for suite in suites {
        let settings = Settings::new(suite, Some(payload.clone()));
        let mut result = Ok(());
        for runtime in &runtimes {
            result = with_runtime(rows, summary, &settings, *runtime, arguments.filter.as_deref());
            if result.is_err() {
                break;
            }
        }
        let down = Node::find(settings.suite, &settings.name).and_then(Node::down);
        result.and(match down {
            // It died, and was cleared away then.
            Err(Error::Node(Failure::NotUp { .. })) => Ok(()),
            other => other,
        })?;
    }
    Ok(())
}

/// Runs the suite with one runtime; when the node dies, a new one goes on with the tests that had not ended.
fn with_runtime(
    rows: &mut Vec<Row>,
    summary: &mut Summary,
    settings: &Settings,
    runtime: Runtime,
    filter: Option<&str>,
) -> Result<(), Error> {
    let first = rows.len();
    for attempt in 1..=NODES {
        let node = Node::up(settings)?;
        let containerd = version(&node)?;
        let done: Vec<&str> = rows.iter().skip(first).map(Row::name).collect();
        let without = done.join(",");
        let id = format!("io.containerd.{}.v2", runtime.name());
        let mut command = vec![RUNNER, "cri", "--runtime", &id];
        if !without.is_empty() {
            command.extend(["--without", &without]);
        }
        command.extend(filter);
        let mut found: Vec<Row> = Vec::new();
        let ended = node.lines(&command, |line| {
            eprintln!("{line}");
            if let Some((name, why)) = line.strip_prefix("AGAIN ").and_then(|rest| rest.split_once(": ")) {
                summary.tried_again(&format!("{} {name}", runtime.name()), why);
            }
            match found.last_mut() {
                // What goes with a failure is indented below it.
                Some(row) if line.starts_with(' ') => row.extend(line.trim()),
                _ => found.extend(
                    outcome(line)
                        .map(|(name, outcome)| Row::new(&name, &containerd, runtime.name(), outcome)),
                ),
            }
        });
        let failed = found.iter().any(Row::failed);
        rows.extend(found);
        match ended {
            Ok(status) if !status.success() && !failed => {
                return Err(Error::Task(format!("{RUNNER} ended with {status}")));
            }
            Ok(_) => return Ok(()),
            Err(why @ Error::Node(Failure::Died { .. })) if attempt < NODES => {
                error::print_chain(&why);
                eprintln!("a new node goes on after {} tests", rows.len() - first);
            }
            Err(why) => return Err(why),
        }
    }
    Ok(())
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
