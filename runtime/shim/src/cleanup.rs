//! `delete`: containerd lost a shim, and whatever it left on the host has to go.
//!
//! This is another process than the shim was; all it knows is in the pod's folder. It can be called again and again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Error as EncodeError, Message};
use nacre_configuration::Configuration;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Spec;

use crate::annotations::Role;
use crate::error::TaskError;
use crate::id::Id;
use crate::network::{self, NetworkError};
use crate::pidfd::PidFd;
use crate::process::KILLED;
use crate::start::socket_path;
use crate::state::{JoinedNetwork, StateError, StateFolder};

/// How long a killed process may take to be gone, in milliseconds.
const GONE_MS: u16 = 10_000;

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The names.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The pod's folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The pod's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The system has no room for a runtime.
    #[error("the network can't be cleaned up")]
    Runtime(#[source] io::Error),
    /// A process could not be killed.
    #[error("process {pid} can't be killed")]
    Kill {
        /// Its number.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// containerd did not take the answer.
    #[error("containerd does not take the answer")]
    Answer(#[source] io::Error),
    /// The answer can't be encoded.
    #[error("the answer can't be encoded")]
    Encode(#[from] EncodeError),
}

/// Carries out `delete` and answers on stdout.
///
/// # Errors
/// See [`CleanupError`].
pub fn run(flags: &Flags) -> Result<(), CleanupError> {
    let (id, namespace) = (Id::new(&flags.id)?, Id::new(&flags.namespace)?);
    let bundle = if flags.bundle.is_empty() { Path::new(".") } else { Path::new(&flags.bundle) };
    let role = Spec::load(bundle.join("config.json"))
        .ok()
        .and_then(|spec| Role::of(&spec).ok())
        .unwrap_or(Role::Lone);
    let sandbox = role.sandbox(&id);
    // A wrong configuration must not keep a pod from being cleaned up.
    let root = Configuration::load().unwrap_or_default().state.path;
    let folder = StateFolder::of(&root, &namespace, sandbox);
    let address = containerd_shim::socket_address(&flags.address, &flags.namespace, sandbox.as_str());
    let pid = clean(&folder, matches!(role, Role::Member { .. }), socket_path(&address))?;

    let response = DeleteResponse {
        pid,
        exit_status: KILLED,
        exited_at: Some(SystemTime::now().into()).into(),
        ..Default::default()
    };
    io::stdout().write_all(&response.write_to_bytes()?).map_err(CleanupError::Answer)
}

/// Removes what a pod left, unless it is the pod of a member and still runs. The result is the number that containerd
/// has for the pod's processes.
fn clean(folder: &StateFolder, is_member: bool, default_socket: &Path) -> Result<u32, CleanupError> {
    let state = folder.read();
    let vmm_pid = state.as_ref().and_then(|state| state.vmm).map_or(0, |vmm| vmm.pid);
    let shim = state.as_ref().and_then(|state| Some((state.shim.pid, state.shim.open()?)));
    if is_member && shim.is_some() {
        // The container alone failed; its pod goes on.
        return Ok(vmm_pid);
    }
    // containerd can't reach it any more, or it would not ask us.
    if let Some((pid, shim)) = shim {
        end(pid, &shim)?;
    }
    if let Some(vmm) = state.as_ref().and_then(|state| state.vmm)
        && let Some(process) = vmm.open()
    {
        end(vmm.pid, &process)?;
    }
    if let Some(cgroup) = state.as_ref().and_then(|state| state.cgroup.as_ref()) {
        cgroup.remove();
    }
    if let Some(network) = state.as_ref().and_then(|state| state.network.as_ref()) {
        disconnect(network)?;
    }
    let socket: PathBuf = state.map_or_else(|| default_socket.to_owned(), |state| state.socket);
    if UnixStream::connect(&socket).is_err() {
        let _ = std::fs::remove_file(&socket);
    }
    folder.remove()?;
    Ok(vmm_pid)
}

fn disconnect(joined: &JoinedNetwork) -> Result<(), CleanupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(CleanupError::Runtime)?;
    Ok(runtime.block_on(network::disconnect(&joined.namespace, joined.indexes.clone()))?)
}

/// Kills a process and waits until it is gone.
fn end(pid: u32, process: &PidFd) -> Result<(), CleanupError> {
    let failed = |source| CleanupError::Kill { pid, source };
    process.kill().map_err(failed)?;
    let mut gone = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    match poll(&mut gone, PollTimeout::from(GONE_MS)) {
        Ok(1..) => Ok(()),
        Ok(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::state::{ProcessIdentity, State};

    fn sleeper() -> (Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        (child, identity)
    }

    fn gone() -> ProcessIdentity {
        ProcessIdentity { pid: std::process::id(), started: 1 }
    }

    fn folder(root: &Path) -> StateFolder {
        let folder = StateFolder::of(root, &Id::new("default").unwrap(), &Id::new("web").unwrap());
        folder.create().unwrap();
        folder
    }

    #[test]
    fn a_vmm_without_its_shim_is_killed_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let (mut child, vmm) = sleeper();
        let folder = folder(root.path());
        let socket = root.path().join("socket");
        std::fs::write(&socket, "").unwrap();
        folder
            .write(&State { shim: gone(), vmm: Some(vmm), socket: socket.clone(), ..Default::default() })
            .unwrap();

        assert_eq!(clean(&folder, false, Path::new("/none")).unwrap(), child.id());
        assert!(!child.wait().unwrap().success());
        assert!(!socket.exists());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(clean(&folder, false, Path::new("/none")).unwrap(), 0);
    }

    #[test]
    fn a_pod_that_lives_is_not_touched_for_a_member() {
        let root = tempfile::tempdir().unwrap();
        let (mut child, shim) = sleeper();
        let folder = folder(root.path());
        let state = State { shim, socket: "/none".into(), ..Default::default() };
        folder.write(&state).unwrap();

        clean(&folder, true, Path::new("/none")).unwrap();

        assert!(child.try_wait().unwrap().is_none());
        assert_eq!(folder.read(), Some(state));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
