//! The spawner's loop: one helper for each order.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;

use nix::sys::signal::{SigHandler, Signal};

use super::helper;
use super::order::Stdio;
use super::{fork, fork_child, receive};

/// Serves orders until the agent closes its end. Never returns.
pub fn serve(socket: OwnedFd) -> ! {
    // Without the spawner no container can be made, so it is not what the kernel kills for want of memory. What it
    // makes gets the score of its specification.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // Helpers are not waited for: with SIGCHLD ignored the kernel forgets them.
    let _ = set_child_signal(SigHandler::SigIgn);
    while let Ok(Some((kind, fds))) = receive(socket.as_raw_fd()) {
        let mut fds = fds.into_iter();
        let (Some(report), Some(body)) = (fds.next(), fds.next()) else { continue };
        let streams = kind.first() == Some(&Stdio::STREAMS);
        let stdio = match streams.then(|| (fds.next(), fds.next(), fds.next())) {
            Some((Some(stdin), Some(stdout), Some(stderr))) => Stdio::Streams([stdin, stdout, stderr]),
            _ => Stdio::Terminal,
        };
        let init = fds.next();
        match fork_child() {
            Ok(None) => {
                drop(socket);
                let _ = set_child_signal(SigHandler::SigDfl);
                helper::run(&report, body, stdio, init);
                process::exit(0);
            }
            Ok(Some(_)) => {}
            Err(error) => helper::refuse(&report, format!("can't fork: {error}")),
        }
    }
    process::exit(0);
}

fn set_child_signal(handler: SigHandler) -> nix::Result<()> {
    fork::set_handler(Signal::SIGCHLD, handler)
}
