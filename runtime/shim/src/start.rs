//! `start`: containerd asks for the socket of a container's shim.
//!
//! A member of a pod gets its pod's socket. For a sandbox or a lone container a shim is started: this process makes
//! the socket and hands it over, so that containerd can connect before the shim is up.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult};
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::TASK_API_VERSION;
use containerd_shim_protos::protobuf::{Error as MessageError, Message};
use oci_spec::runtime::Spec;

use crate::annotations::Role;
use crate::error::TaskError;
use crate::id::Id;
use crate::inherit::inherit;

/// Where a shim finds its listening socket.
pub const LISTENER_FD: std::os::fd::RawFd = 3;
/// The environment variable with the address at which containerd takes events.
pub const EVENTS_ADDRESS: &str = "TTRPC_ADDRESS";
/// containerd sends no more than this.
const LARGEST_INPUT: u64 = 10 << 20;

/// Why no shim was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The names or the bundle.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// containerd's message.
    #[error("containerd's parameters can't be read")]
    Parameters(#[source] MessageError),
    /// containerd did not say where it takes events.
    #[error("containerd gave no address for events")]
    NoEventsAddress,
    /// The shim's socket.
    #[error("the shim's socket {path} can't be made")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else of the system.
    #[error("{doing} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// How containerd asked: since 2.3 with a message, which wants one in return.
struct Asked {
    options: StartOpts,
    by_message: bool,
}

/// Carries out `start` and answers on stdout.
///
/// # Errors
/// See [`StartError`].
pub fn run(flags: &Flags) -> Result<(), StartError> {
    let id = Id::new(&flags.id)?;
    Id::new(&flags.namespace)?;
    let Asked { options, by_message } = asked(flags)?;
    let spec = Spec::load("config.json")
        .map_err(|source| TaskError::BadBundle { path: "config.json".into(), source })?;
    let role = Role::of(&spec)?;
    let address = options.socket_address(role.sandbox(&id).as_str());
    if !matches!(role, Role::Member { .. })
        && let Some(listener) = listen(&address)?
    {
        spawn(flags, &options, &address, listener.into())?;
    }
    // containerd 1.6 and older look for it there after a restart.
    fs::write("address", &address)
        .map_err(|source| StartError::Io { doing: "writing the address", source })?;
    let answer = answer(address, by_message)?;
    io::stdout().write_all(&answer).map_err(|source| StartError::Io { doing: "answering containerd", source })
}

/// An address alone is what every containerd understands; it means version 2 of the Task API, which the shim
/// serves beside version 3.
fn answer(address: String, by_message: bool) -> Result<Vec<u8>, StartError> {
    if !by_message {
        return Ok(address.into_bytes());
    }
    let result = BootstrapResult {
        version: TASK_API_VERSION,
        address,
        protocol: "ttrpc".into(),
        ..Default::default()
    };
    result.write_to_bytes().map_err(StartError::Parameters)
}

fn asked(flags: &Flags) -> Result<Asked, StartError> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin
            .take(LARGEST_INPUT)
            .read_to_end(&mut input)
            .map_err(|source| StartError::Io { doing: "reading containerd's parameters", source })?;
    }
    // Older versions send the runtime's options there, which may look like such a message, but not with our names.
    let message = BootstrapParams::parse_from_bytes(&input)
        .ok()
        .filter(|message| message.instance_id == flags.id && message.namespace == flags.namespace);
    let by_message = message.is_some();
    let options = match message {
        Some(message) => message.into(),
        None => StartOpts {
            id: flags.id.clone(),
            namespace: flags.namespace.clone(),
            address: flags.address.clone(),
            ttrpc_address: std::env::var(EVENTS_ADDRESS).unwrap_or_default(),
            debug: flags.debug,
            ..Default::default()
        },
    };
    if options.ttrpc_address.is_empty() {
        return Err(StartError::NoEventsAddress);
    }
    Ok(Asked { options, by_message })
}

/// Makes the shim's socket; `None` if a shim serves there already.
fn listen(address: &str) -> Result<Option<UnixListener>, StartError> {
    let path = socket_path(address);
    let failed = |source| StartError::Socket { path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map(Some).map_err(failed)
        }
        other => other.map(Some).map_err(failed),
    }
}

fn spawn(flags: &Flags, options: &StartOpts, address: &str, listener: OwnedFd) -> Result<(), StartError> {
    let spawn = || -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &options.address]);
        command.args(["-socket", address]);
        if options.debug {
            command.arg("-debug");
        }
        // What a dying shim says reaches containerd's log.
        let stderr = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("log");
        command
            .env(EVENTS_ADDRESS, &options.ttrpc_address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.map_or_else(|_| Stdio::null(), Stdio::from))
            .process_group(0);
        inherit(&mut command, listener, LISTENER_FD);
        command.spawn().map(drop)
    };
    spawn().map_err(|source| {
        let _ = fs::remove_file(socket_path(address));
        StartError::Io { doing: "starting the shim", source }
    })
}

/// The path in an address.
pub fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_containerd_gets_the_address_alone_and_a_new_one_a_message() {
        assert_eq!(answer("unix:///s".into(), false).unwrap(), b"unix:///s");
        let message = BootstrapResult::parse_from_bytes(&answer("unix:///s".into(), true).unwrap()).unwrap();
        assert_eq!((message.version, message.address.as_str()), (3, "unix:///s"));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/s/socket", folder.path().display());
        let first = listen(&address).unwrap().unwrap();
        assert!(listen(&address).unwrap().is_none());
        drop(first);
        assert!(listen(&address).unwrap().is_some());
    }
}
