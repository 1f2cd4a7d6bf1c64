//! Finding and executing a container's program, with errors that say why not.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};
use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program can't be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProgramError {
    /// There is no such file.
    #[error("exec: {program:?}: {reason}")]
    NotFound {
        /// As in the specification.
        program: String,
        /// What exactly is missing.
        reason: String,
    },
    /// It is there but may not be executed.
    #[error("exec: {program:?}: {reason}")]
    NotPermitted {
        /// As in the specification.
        program: String,
        /// What exactly is not permitted.
        reason: String,
    },
    /// It is not in a format the kernel can run, or the like.
    #[error("exec: {program:?}: {reason}")]
    NotRunnable {
        /// As in the specification.
        program: String,
        /// The kernel's reason.
        reason: String,
    },
    /// The specification names none, or one with a NUL.
    #[error("the process has no usable program and arguments")]
    NoProgram,
}

/// A program ready to be executed: everything that needs memory is prepared.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Finds the program in the present root, as the present user. `env` is the environment it will get.
    pub fn find(process: &Process, env: &[String]) -> Result<Self, ProgramError> {
        let args = process.args().as_deref().unwrap_or_default();
        let name = args.first().filter(|name| !name.is_empty()).ok_or(ProgramError::NoProgram)?.clone();
        let search = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let path = locate(&name, search)?;
        let strings = |texts: &[String]| -> Result<Vec<CString>, ProgramError> {
            texts
                .iter()
                .map(|text| CString::new(text.as_str()).map_err(|_| ProgramError::NoProgram))
                .collect()
        };
        Ok(Self { path, args: strings(args)?, env: strings(env)?, name })
    }

    /// Executes it; returns only if that fails.
    pub fn execute(&self) -> ProgramError {
        match execve(&self.path, &self.args, &self.env) {
            Ok(never) => absurd(never),
            Err(errno) => self.refused(errno),
        }
    }

    fn refused(&self, errno: Errno) -> ProgramError {
        let program = self.name.clone();
        let reason = reason(errno);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => ProgramError::NotFound { program, reason },
            Errno::EACCES | Errno::EPERM | Errno::EISDIR => ProgramError::NotPermitted { program, reason },
            _ => ProgramError::NotRunnable { program, reason },
        }
    }
}

fn absurd(never: Infallible) -> ProgramError {
    match never {}
}

fn reason(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

fn locate(name: &str, search: &str) -> Result<CString, ProgramError> {
    let found = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| ProgramError::NoProgram);
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => found(Path::new(name)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                Err(ProgramError::NotFound { program: name.into(), reason: reason(Errno::ENOENT) })
            }
            Err(errno) => Err(ProgramError::NotPermitted { program: name.into(), reason: reason(errno) }),
        };
    }
    let mut forbidden = None;
    for folder in search.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let path = Path::new(folder).join(OsStr::new(name));
        match check(&path) {
            Ok(()) => return found(&path),
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => forbidden = Some(errno),
            Err(_) => {}
        }
    }
    Err(match forbidden {
        Some(errno) => ProgramError::NotPermitted { program: name.into(), reason: reason(errno) },
        None => ProgramError::NotFound {
            program: name.into(),
            reason: "executable file not found in $PATH".into(),
        },
    })
}

fn check(path: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(path).map_err(|error| errno_of(&error))?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
