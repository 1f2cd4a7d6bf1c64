//! Running other programs, with their output in a log that an error quotes.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::cache;
use crate::error::Error;

/// Lines of a log that an error shows.
const TAIL: usize = 25;

/// Runs `command` with its output in `<cache>/logs/<log>.log`.
///
/// # Errors
/// It can't be started, or ends with another status than zero.
pub fn run(log: &str, command: &mut Command) -> Result<(), Error> {
    let folder = cache::root().join("logs");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    let path = folder.join(format!("{log}.log"));
    let file = File::create(&path).map_err(Error::file("can't write", &path))?;
    let error = file.try_clone().map_err(Error::file("can't write", &path))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(error)
        .status()
        .map_err(|source| Error::Start { program: program(command), source })?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(&path).map_err(Error::file("can't read", &path))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
    Err(Error::Ended { line: format!("{command:?}"), status: status.to_string(), log: path, tail })
}

/// Runs `command` and returns what it wrote to standard output, without the last line break.
///
/// # Errors
/// It can't be started, or ends with another status than zero.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: program(command), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(Error::Task(format!("{command:?} ended with {}: {}", output.status, error.trim_end())))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
