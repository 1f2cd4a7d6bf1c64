//! Programs of other projects.

use std::process::{Command, Stdio};

use super::Finding;

/// The tool that makes images of layers.
pub fn mkfs() -> Finding {
    let (name, tool) = ("mkfs.erofs", "mkfs.erofs");
    match first_line(tool, "-V") {
        // Up to 1.5 the line has the program's name, later that of its package.
        Some(line) => {
            let version = line.replace("mkfs.erofs", "").replace(['(', ')'], "").replace("erofs-utils", "");
            Finding::ok(name, version.trim())
        }
        None => Finding::missing(name, "not found", "install the package erofs-utils"),
    }
}

/// The first line that a program prints about itself; `None` when there is no such program.
pub fn first_line(program: &str, argument: &str) -> Option<String> {
    let output =
        Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().to_owned())
}
