//! What operators can ask a pod's shim, through a socket in the pod's folder.

mod about;
mod answer;
mod listen;
mod replies;
mod shell;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use nacre_operator::{ABOUT_FILE, About, SOCKET_FILE};
use slog::warn;
use tokio::task::AbortHandle;

pub use about::{about, devices};

use crate::pod::Pod;
use crate::recent::Recent;
use crate::state::StateFolder;

/// What a pod keeps for operators.
#[derive(Debug, Default)]
pub struct Desk {
    recent: Recent,
    /// Guards whether there is a listener, which ends with the pod's VM.
    listener: Mutex<Option<AbortHandle>>,
}

impl Desk {
    /// A desk that nobody can come to yet.
    pub fn new(recent: Recent) -> Self {
        Self { recent, listener: Mutex::default() }
    }

    /// The log's last messages.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Takes no more questions. The folder with the socket is somebody else's to remove.
    pub fn close(&self) {
        self.replace(None);
    }

    fn replace(&self, new: Option<AbortHandle>) {
        let old = std::mem::replace(&mut *self.listener.lock().unwrap_or_else(PoisonError::into_inner), new);
        if let Some(old) = old {
            old.abort();
        }
    }
}

/// Writes down what a pod is, and lets operators ask from now on. A pod runs without that, too.
pub fn open(pod: &Arc<Pod>, folder: &StateFolder, about: About) {
    let opened = serde_json::to_vec(&about)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(folder.file(ABOUT_FILE), json))
        .and_then(|()| listen::bind(&folder.file(SOCKET_FILE)));
    match opened {
        Ok(listener) => {
            pod.desk().replace(Some(pod.spawn(listen::serve(listener, pod.clone(), about.shell))));
        }
        Err(error) => warn!(pod.log(), "operators can't ask this pod"; "error" => %error),
    }
}
