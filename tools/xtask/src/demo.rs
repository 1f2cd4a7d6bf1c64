//! `cargo xtask demo`: all the set-up there is, then a container in its own virtual machine, started by containerd.

mod timeline;

use std::process::ExitCode;

use crate::error::Error;
use crate::images;
use crate::node::{self, Node, Settings, Suite};
use crate::payload;
use crate::progress::Progress;

/// What the demonstration does after payload and node are there.
const STEPS: [&str; 2] = ["import of the image into containerd", "the demonstration"];

const RUNTIME: &str = "io.containerd.nacre.v2";
const NAMESPACE: &str = "demo";
const CONTAINER: &str = "demo";
const IMAGE_FILE: &str = "/payload/images/demo.tar";
const LAUNCHES: &str = "/var/log/nacre/launches.jsonl";
const SECRET: &str = "pearls grow in the dark";

/// What a command in the node did.
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Sets everything up, runs the demonstration and prints what happened.
///
/// # Errors
/// A part of the set-up fails.
pub fn run() -> Result<ExitCode, Error> {
    let names: Vec<&'static str> = [&payload::STEPS[..], &node::STEPS, &STEPS].concat();
    let mut progress = Progress::new(&names);
    let payload = payload::build(&mut progress)?;
    let node = Node::up_with(&Settings::new(Suite::default(), Some(payload)), &mut progress)?;
    progress.step(|| import(&node))?;
    let (released, ran) = progress.step(|| Ok((exec(&node, &["uname", "-r"])?, demonstrate(&node)?)))?;
    let launch = exec(&node, &["tail", "-n", "1", LAUNCHES])?.stdout;
    print(&released.stdout, &ran, &launch);
    let good = ran.code == Some(0) && ran.stdout.contains(images::SECRET_LINE);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn import(node: &Node) -> Result<(), Error> {
    let imported = exec(node, &["ctr", "-n", NAMESPACE, "image", "import", IMAGE_FILE])?;
    if imported.code == Some(0) {
        return Ok(());
    }
    Err(Error::Task(format!("containerd does not import {IMAGE_FILE}: {}", imported.stderr.trim_end())))
}

fn demonstrate(node: &Node) -> Result<Done, Error> {
    exec(node, &words().iter().map(String::as_str).collect::<Vec<_>>())
}

/// The command that a person would type on the node.
fn words() -> Vec<String> {
    let secret = format!("SECRET_KEY={SECRET}");
    ["ctr", "-n", NAMESPACE, "run", "--rm", "--runtime", RUNTIME, "--env", &secret]
        .into_iter()
        .chain([images::reference("demo").as_str(), CONTAINER])
        .map(str::to_owned)
        .collect()
}

fn exec(node: &Node, command: &[&str]) -> Result<Done, Error> {
    let output = node.exec(command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Done { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

fn print(node_release: &str, ran: &Done, launch: &str) {
    let inside =
        ran.stdout.lines().find_map(|line| line.strip_prefix("kernel release: ")).unwrap_or("unknown");
    let quoted: Vec<String> =
        words().into_iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word }).collect();
    println!();
    println!("On the node:");
    println!("  # {}", quoted.join(" "));
    for line in ran.stdout.lines().chain(ran.stderr.lines()) {
        println!("  {line}");
    }
    println!("  exit status {}", ran.code.map_or("unknown".to_owned(), |code| code.to_string()));
    println!();
    println!("  kernel of the node        kernel of the container");
    println!("  {:24}  {inside}", node_release.trim_end());
    println!();
    match timeline::table(launch) {
        Some(table) => println!("The launch, in milliseconds:\n{table}"),
        None => println!("No timeline in {LAUNCHES}."),
    }
}
