//! Programs and files over ssh: one connection for each node, kept open, so that a program costs little.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use super::run::{Run, State};
use crate::command;
use crate::error::Error;

/// What ssh returns when it, and not the program, failed.
pub const FAILED: i32 = 255;

/// The way into a node.
#[derive(Debug)]
pub struct Shell {
    run: Run,
    port: u16,
}

impl Shell {
    /// To the node of this folder and state.
    pub fn new(run: &Run, state: &State) -> Self {
        Self { run: run.clone(), port: state.port }
    }

    /// Opens the connection that all others share.
    ///
    /// # Errors
    /// ssh can't connect.
    pub fn open(&self) -> Result<(), Error> {
        let mut master = self.ssh();
        // In a process of its own, with nothing that a caller may wait for.
        master.args(["-M", "-N", "-f", "-o", "ControlPersist=yes", "node"]);
        command::run("node-ssh", &mut master)
    }

    /// Ends the shared connection, if there is one.
    pub fn close(&self) {
        let mut exit = self.ssh();
        exit.args(["-O", "exit", "node"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = exit.status();
    }

    /// Runs a program and collects its output.
    ///
    /// # Errors
    /// ssh can't be started.
    pub fn output(&self, program: &[&str]) -> Result<Output, Error> {
        let mut ssh = self.program(program);
        ssh.stdin(Stdio::null()).output().map_err(start)
    }

    /// Runs a program with the stdin, stdout and stderr of this process, on a terminal if this process has one.
    ///
    /// # Errors
    /// ssh can't be started.
    pub fn run(&self, program: &[&str]) -> Result<ExitStatus, Error> {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let mut ssh = self.ssh();
        ssh.args([if terminal { "-t" } else { "-T" }, "node", "--", &remote(program)]);
        ssh.status().map_err(start)
    }

    /// Runs a program and gives each line of its stdout to `line`; its stderr is this process's.
    ///
    /// # Errors
    /// ssh can't be started.
    pub fn lines(&self, program: &[&str], mut line: impl FnMut(&str)) -> Result<ExitStatus, Error> {
        let mut ssh = self.program(program);
        let mut child = ssh.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
        if let Some(stdout) = child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                line(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']));
                bytes.clear();
            }
        }
        child.wait().map_err(start)
    }

    /// Copies a file or folder to the path `to` in the node.
    ///
    /// # Errors
    /// tar fails on either side.
    pub fn push(&self, from: &Path, to: &str) -> Result<(), Error> {
        let (folder, name) = split(from)?;
        let there = format!(
            "rm -rf {0}.partial && mkdir -p {0}.partial && tar -x -C {0}.partial && \
             if [ -d {0} ]; then cp -a {0}.partial/{1} {0}/; else mkdir -p \"$(dirname {0})\" && mv -f {0}.partial/{1} {0}; fi && rm -rf {0}.partial",
            quote(to.trim_end_matches('/')),
            quote(&name)
        );
        let mut tar = Command::new("tar");
        tar.arg("-c").arg("-C").arg(folder).arg(&name);
        self.pipe(tar, &there, Direction::In)
    }

    /// Copies a file or folder of the node to the path `to`.
    ///
    /// # Errors
    /// tar fails on either side.
    pub fn pull(&self, from: &str, to: &Path) -> Result<(), Error> {
        let (folder, name) = split(Path::new(from))?;
        let there = format!("tar -c -C {} {}", quote(&folder.display().to_string()), quote(&name));
        let to = if to.is_dir() { to.join(&name) } else { to.to_path_buf() };
        let (parent, new) = split(&to)?;
        let partial = parent.join(format!(".{new}.{}", std::process::id()));
        fs::create_dir_all(&partial).map_err(Error::file("can't make the folder", &partial))?;
        let mut tar = Command::new("tar");
        tar.arg("-x").arg("-C").arg(&partial);
        let pulled = self
            .pipe(tar, &there, Direction::Out)
            .and_then(|()| fs::rename(partial.join(&name), &to).map_err(Error::file("can't replace", &to)));
        let _ = fs::remove_dir_all(&partial);
        pulled
    }

    fn pipe(&self, mut tar: Command, there: &str, direction: Direction) -> Result<(), Error> {
        let mut ssh = self.ssh();
        ssh.args(["-T", "node", "--", there]);
        let (first, second) = match direction {
            Direction::In => (&mut tar, &mut ssh),
            Direction::Out => (&mut ssh, &mut tar),
        };
        let mut source = first.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
        if let Some(stdout) = source.stdout.take() {
            second.stdin(stdout);
        }
        let sunk = second.output().map_err(start)?;
        let sent = source.wait().map_err(start)?;
        if sunk.status.success() && sent.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&sunk.stderr).trim_end().to_owned();
        Err(Error::Task(format!("the copy failed: sender {sent}, receiver {}: {said}", sunk.status)))
    }

    fn program(&self, program: &[&str]) -> Command {
        let mut ssh = self.ssh();
        ssh.args(["-T", "node", "--", &remote(program)]);
        ssh
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        // In the node's folder, where the keys are, and so that the socket's path is short whatever the cache's is.
        ssh.current_dir(self.run.folder());
        ssh.args(["-F", "none", "-q", "-l", "root", "-i", "key", "-p", &self.port.to_string()]);
        for option in [
            "HostName=127.0.0.1",
            "HostKeyAlias=node",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            "UserKnownHostsFile=known_hosts",
            "ControlPath=ssh",
            "ConnectTimeout=20",
            "ServerAliveInterval=30",
            "ServerAliveCountMax=6",
            "Compression=no",
            // AES-NI is emulated slowly; this one is plain arithmetic.
            "Ciphers=chacha20-poly1305@openssh.com",
        ] {
            ssh.args(["-o", option]);
        }
        ssh
    }
}

enum Direction {
    In,
    Out,
}

fn split(path: &Path) -> Result<(&Path, String), Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::Task(format!("{} does not end in a name", path.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name.to_owned()))
}

/// The command line for the node's shell, which stays to report a death by signal as 128 and its number.
fn remote(program: &[&str]) -> String {
    let words: Vec<String> = program.iter().map(|word| quote(word)).collect();
    format!("{}; exit $?", words.join(" "))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn start(source: std::io::Error) -> Error {
    Error::Start { program: "ssh or tar".into(), source }
}

#[cfg(test)]
mod tests {
    use super::{quote, remote, split};
    use std::path::Path;

    #[test]
    fn quotes_what_a_shell_would_change() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(remote(&["echo", "a b", ""]), "'echo' 'a b' ''; exit $?");
    }

    #[test]
    fn splits_a_path_into_folder_and_name() {
        assert_eq!(split(Path::new("file")).unwrap(), (Path::new("."), "file".into()));
        assert_eq!(split(Path::new("/a/b/")).unwrap(), (Path::new("/a"), "b".into()));
        assert!(split(Path::new("/")).is_err());
    }
}
