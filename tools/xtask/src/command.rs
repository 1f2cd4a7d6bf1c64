//! Running other programs, with their output in a log that an error quotes.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::cache;
use crate::error::Error;

/// Lines of a log that an error shows.
const TAIL: usize = 25;

/// Runs `command` with its output in `<cache>/logs/<log>.log`.
///
/// # Errors
/// It can't be started, or ends with another status than zero.
pub fn run(log: &str, command: &mut Command) -> Result<(), Error> {
    let (path, file) = log_file(log)?;
    let error = file.try_clone().map_err(Error::file("can't write", &path))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(error)
        .status()
        .map_err(|source| Error::Start { program: program(command), source })?;
    verdict(command, status, path)
}

/// Like [`run`], and hands each line of output to `watch` when it comes.
///
/// # Errors
/// Those of [`run`].
pub fn run_watched(log: &str, command: &mut Command, mut watch: impl FnMut(&str)) -> Result<(), Error> {
    let (path, mut file) = log_file(log)?;
    let failed = |source| Error::Start { program: program(command), source };
    let (output, writer) = io::pipe().map_err(failed)?;
    let mut child = {
        let error = writer.try_clone().map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(error).spawn();
        // The command keeps the pipe's writing ends until it gets others, and the lines would not end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        child.map_err(|source| Error::Start { program: program(command), source })?
    };
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(Error::file("can't read what goes to", &path))?;
        file.write_all(&line)
            .and_then(|()| file.write_all(b"\n"))
            .map_err(Error::file("can't write", &path))?;
        watch(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().map_err(|source| Error::Start { program: program(command), source })?;
    verdict(command, status, path)
}

fn log_file(log: &str) -> Result<(PathBuf, File), Error> {
    let folder = cache::root().join("logs");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    let path = folder.join(format!("{log}.log"));
    let file = File::create(&path).map_err(Error::file("can't write", &path))?;
    Ok((path, file))
}

fn verdict(command: &Command, status: ExitStatus, log: PathBuf) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    let tail = tail(&log)?;
    Err(Error::Ended { line: format!("{command:?}"), status: status.to_string(), log, tail })
}

fn tail(path: &Path) -> Result<String, Error> {
    let text = fs::read(path).map_err(Error::file("can't read", path))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_command_shows_every_line_and_quotes_its_end_when_it_fails() {
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let result = run_watched("test-watched", &mut shell, |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "three"]);
        let error = result.expect_err("status 3").to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("one\ntwo\nthree"), "{error}");
    }
}
