//! The socket: who may ask, and one request on each connection.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nacre_operator::{Call, Fault, Request};
use slog::{debug, warn};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Take};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::answer::answer;
use super::replies::Replies;
use super::shell;
use crate::pod::Pod;

/// A request is not longer than this.
const LONGEST_REQUEST: u64 = 16 << 10;
/// Who connects says soon what he wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the socket, for root alone.
///
/// # Errors
/// It can't be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    // What a pod of the same name left when its shim was killed.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is aborted, and with it all calls that are under way.
pub async fn serve(listener: UnixListener, pod: Arc<Pod>, shell_allowed: bool) {
    let mut calls = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_allowed(&stream) => {
                while calls.try_join_next().is_some() {}
                calls.spawn(converse(stream, pod.clone(), shell_allowed));
            }
            Ok(_) => warn!(pod.log(), "a stranger at the operators' socket"),
            Err(error) => {
                warn!(pod.log(), "operators' socket closed"; "error" => %error);
                return;
            }
        }
    }
}

/// SECURITY: the socket's mode says the same; this holds where somebody changed that.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Returns when the other end is closed, or says more than it should.
async fn gone(reader: &mut BufReader<Take<OwnedReadHalf>>) {
    let _ = reader.read(&mut [0]).await;
}

async fn converse(stream: UnixStream, pod: Arc<Pod>, shell_allowed: bool) {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(LONGEST_REQUEST));
    let mut line = String::new();
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(Ok(1..)) => {}
        _ => return,
    }
    let mut replies = Replies::new(writer);
    // Nobody listens: then nobody misses the answer either.
    let _ = match Request::read(&line) {
        Err(_) => {
            let version = env!("CARGO_PKG_VERSION");
            let message = format!("the pod's shim, version {version}, does not know what this nacre asks");
            replies.bad(Fault::Unknown, message).await
        }
        Ok(Request { call: Call::Shell { container, command, stdin, stdout, size }, .. }) => {
            let wanted = shell::Wanted { container, command, stdin, stdout, size };
            shell::run(&pod, wanted, reader, &mut replies, shell_allowed).await
        }
        Ok(Request { call, .. }) => {
            debug!(pod.log(), "an operator asks"; "call" => ?call);
            // SECURITY: a guest that does not answer and an operator who gives up leave nothing behind.
            tokio::select! {
                answered = answer(&pod, call, &mut replies) => answered,
                _ = gone(&mut reader) => Ok(()),
            }
        }
    };
}
