//! The folder of a running node: its state, lock, overlay, console and sockets.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::{Kernel, Suite};
use crate::cache::{self, Key};
use crate::error::Error;

/// Lines of the console that an error shows.
const CONSOLE_TAIL: usize = 20;

/// What is known of a node that was started.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// QEMU's process.
    pub pid: i32,
    /// The port on loopback that leads to its ssh server.
    pub port: u16,
    /// Seconds since 1970 at its start.
    pub started: u64,
    /// Milliseconds it took to come up; none as long as it is not up.
    pub took_ms: Option<u64>,
    /// The folder of its image.
    pub image: PathBuf,
    /// Its second disk.
    pub payload: Option<PathBuf>,
    /// Its kernel.
    #[serde(default)]
    pub kernel: Kernel,
    /// How QEMU runs it: accelerator and processor.
    pub setting: String,
}

/// The folder of one node of this checkout.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
}

impl Run {
    /// The folder for the node of this suite and name.
    ///
    /// # Errors
    /// The name can't be part of a path, or the folder can't be made.
    pub fn open(suite: Suite, name: &str) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err(Error::Task(format!(
                "a node's name is 1 to 32 letters, digits and dashes, not {name:?}"
            )));
        }
        let mut checkout = Key::default();
        checkout.add("checkout", cache::checkout().as_os_str().as_encoded_bytes());
        let folder =
            cache::root().join("nodes").join(checkout.finish()).join(format!("{}-{name}", suite.name()));
        fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
        Ok(Self { folder })
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of the node's first serial port.
    pub fn console(&self) -> PathBuf {
        self.file("console.log")
    }

    /// Keeps other tasks from starting or ending this node as long as the returned lock lives.
    ///
    /// # Errors
    /// [`Failure::Busy`], or the lock file can't be written.
    pub fn lock(&self) -> Result<Flock<File>, Error> {
        let path = self.file("lock");
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open.map_err(Error::file("can't open", &path))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, _)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(Failure::Busy { holder: holder.trim().to_owned() }.into());
            }
        };
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(Error::file("can't write", &path))?;
        Ok(lock)
    }

    /// Copies the image's keys, by which the node is reached: the cache may forget the image before the node ends.
    ///
    /// # Errors
    /// They can't be copied.
    pub fn take_keys(&self, image: &Path) -> Result<(), Error> {
        for name in ["key", "known_hosts"] {
            fs::copy(image.join(name), self.file(name))
                .map_err(Error::file("can't copy", image.join(name)))?;
        }
        Ok(())
    }

    /// The state that was saved, if a node was started and not ended.
    ///
    /// # Errors
    /// It can't be read.
    pub fn load(&self) -> Result<Option<State>, Error> {
        let path = self.file("state.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(Error::file("can't read", &path))?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|why| Error::Task(format!("{} is damaged: {why}", path.display())))
    }

    /// Saves the state of a node that was started.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        let path = self.file("state.json");
        let text = serde_json::to_vec_pretty(state).map_err(|why| Error::Task(why.to_string()))?;
        fs::write(&path, text).map_err(Error::file("can't write", &path))
    }

    /// Removes all files but the lock.
    ///
    /// # Errors
    /// One can't be removed.
    pub fn clear(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.folder).map_err(Error::file("can't read", &self.folder))?;
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            fs::remove_file(&path).map_err(Error::file("can't remove", &path))?;
        }
        Ok(())
    }

    /// The line with which the node's kernel said that it panicked, or is about to.
    pub fn panic_line(&self) -> Option<String> {
        panic_line(&self.read("console.log"))
    }

    /// The last lines of the console.
    pub fn console_tail(&self) -> String {
        let text = self.read("console.log");
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(CONSOLE_TAIL)..).unwrap_or_default().join("\n")
    }

    /// What QEMU wrote, without its warnings about processor features that TCG lacks.
    pub fn emulator_output(&self) -> String {
        let text = self.read("qemu.log");
        let told = text.lines().filter(|line| !line.contains("TCG doesn't support requested feature"));
        told.collect::<Vec<_>>().join("\n")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

fn panic_line(console: &str) -> Option<String> {
    console
        .lines()
        .find(|line| line.contains("Kernel panic - not syncing") || line.contains("] Oops: "))
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Run, panic_line};
    use crate::node::Suite;

    #[test]
    fn finds_the_panic_among_other_lines() {
        let console =
            "[ 1.0] fine\n[   12.5] Kernel panic - not syncing: Fatal exception\n[ 13.0] rebooting\n";
        assert_eq!(panic_line(console).unwrap(), "[   12.5] Kernel panic - not syncing: Fatal exception");
        assert_eq!(panic_line("[ 1.0] a program talks of panic\n"), None);
        // An oops is meant to be a panic. It has been seen to hang before it became one.
        let oops = "[   88.059162] Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI";
        assert_eq!(panic_line(oops).unwrap(), oops);
    }

    #[test]
    fn refuses_names_that_leave_the_folder() {
        for name in ["", "..", "a/b", "a b"] {
            assert!(Run::open(Suite::Trixie, name).is_err(), "{name:?}");
        }
    }
}
