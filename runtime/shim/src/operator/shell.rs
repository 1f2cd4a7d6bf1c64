//! A shell in a container, for an operator, where the configuration allows it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nacre_operator::{Fault, ShellEnd, TerminalSize};
use nacre_protocol::oci;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::OwnedReadHalf;

use super::answer::fault;
use super::replies::Replies;
use crate::annotations::Role;
use crate::error::{TaskError, chain};
use crate::pod::Pod;
use crate::stdio::Paths;

/// A line with a terminal's size is not longer.
const LONGEST_SIZE: u64 = 256;
const KILL: u32 = libc::SIGKILL.unsigned_abs();

/// What the operator wants.
#[derive(Debug)]
pub struct Wanted {
    pub container: Option<String>,
    pub command: Vec<String>,
    pub stdin: String,
    pub stdout: String,
    pub size: TerminalSize,
}

/// Runs the shell until it ends or the operator goes.
///
/// # Errors
/// Nobody listens any more.
pub async fn run(
    pod: &Arc<Pod>,
    wanted: Wanted,
    reader: BufReader<tokio::io::Take<OwnedReadHalf>>,
    replies: &mut Replies,
    allowed: bool,
) -> io::Result<()> {
    if !allowed {
        let message = "a shell is allowed only with operator.shell = true in the configuration that the pod was started \
                       with, and never in a machine with vm.tee = \"snp\" or \"tdx\"";
        return replies.bad(Fault::Refused, message).await;
    }
    match converse(pod, wanted, reader).await {
        Ok(status) => replies.good(ShellEnd { exit_status: status }).await,
        Err(error) => replies.bad(fault(&error), chain(&error)).await,
    }
}

async fn converse(
    pod: &Arc<Pod>,
    wanted: Wanted,
    mut reader: BufReader<tokio::io::Take<OwnedReadHalf>>,
) -> Result<u32, TaskError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let exec = format!("nacre-shell-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let container = match wanted.container {
        Some(container) => container,
        None => only_running(pod)?,
    };
    let paths = Paths { stdin: wanted.stdin, stdout: wanted.stdout, stderr: String::new(), terminal: true };
    pod.exec(&container, &exec, process(wanted.command), paths)?;
    let ended = async {
        let size = wanted.size;
        pod.resize(&container, &exec, size.rows, size.columns).await?;
        pod.start(&container, &exec).await?;
        let process = pod.container(&container)?.process(&exec)?;
        let sizes = async {
            loop {
                let mut line = String::new();
                reader.get_mut().set_limit(LONGEST_SIZE);
                match reader.read_line(&mut line).await {
                    Ok(1..) => {}
                    // The operator went, and the shell goes, too.
                    _ => return,
                }
                if let Ok(size) = serde_json::from_str::<TerminalSize>(&line) {
                    let _ = pod.resize(&container, &exec, size.rows, size.columns).await;
                }
            }
        };
        tokio::select! {
            exit = process.wait() => return Ok(exit.status),
            () = sizes => {}
        }
        pod.kill(&container, &exec, KILL, false).await?;
        Ok(process.wait().await.status)
    };
    let ended = ended.await;
    // One that never started, or has ended; with a failure the container is gone, and its processes with it.
    let _ = pod.delete(&container, &exec).await;
    ended
}

fn only_running(pod: &Pod) -> Result<String, TaskError> {
    let containers = pod.all_containers();
    let mut running =
        containers.iter().filter(|container| container.role != Role::Sandbox && container.init.is_alive());
    match (running.next(), running.next()) {
        (Some(only), None) => Ok(only.id.to_string()),
        (None, _) => Err(TaskError::Unsupported("a shell in a pod without a running container")),
        _ => Err(TaskError::Unsupported("a shell in a pod with several containers, none of them named,")),
    }
}

fn process(args: Vec<String>) -> oci::Process {
    oci::Process {
        Terminal: true,
        Args: args,
        Env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "TERM=xterm".into(),
            "HOME=/root".into(),
        ],
        Cwd: "/".into(),
        User: Some(oci::User::default()).into(),
        ..Default::default()
    }
}
