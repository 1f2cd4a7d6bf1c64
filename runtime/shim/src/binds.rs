//! Copying bind mounts' files and small folders into the guest.

mod error;
mod walk;

use std::path::Path;

use nacre_configuration::Configuration;
use nacre_protocol::agent::CopyFileRequest;

pub use error::BindError;
use walk::{Entry, Kind, Limits};

use crate::agent::Agent;
use crate::error::TaskError;
use crate::spec::Bind;

/// A part of a file in one request; a message of ttrpc holds 4 MiB.
const CHUNK: usize = 1 << 20;
/// Folders that the guest makes on the way.
const FOLDER_MODE: u32 = 0o755;

/// Reads what `bind` names, within the configuration's limits.
///
/// # Errors
/// It can't be copied: too large, or not a file, folder or link.
async fn read(bind: &Bind, configuration: &Configuration) -> Result<Vec<Entry>, BindError> {
    let limits = Limits {
        file: configuration.binds.max_file_kib.bytes(),
        folder: configuration.binds.max_folder_kib.bytes(),
        entries: configuration.binds.max_folder_entries.get(),
    };
    let source = bind.source.clone();
    tokio::task::spawn_blocking(move || walk::read(&source, limits)).await.map_err(|_| BindError::Cut)?
}

/// Copies everything that a container's binds name.
///
/// # Errors
/// What can't be copied, by name, or the agent's refusal.
pub async fn copy(binds: &[Bind], configuration: &Configuration, agent: &Agent) -> Result<(), TaskError> {
    for bind in binds {
        for entry in read(bind, configuration).await? {
            send(entry, &bind.guest, agent).await?;
        }
    }
    Ok(())
}

async fn send(entry: Entry, root: &str, agent: &Agent) -> Result<(), TaskError> {
    let path =
        if entry.path == Path::new("") { root.into() } else { format!("{root}/{}", entry.path.display()) };
    let request = CopyFileRequest {
        path,
        file_mode: entry.mode,
        dir_mode: FOLDER_MODE,
        uid: i32::try_from(entry.uid).unwrap_or(0),
        gid: i32::try_from(entry.gid).unwrap_or(0),
        ..Default::default()
    };
    match entry.kind {
        Kind::Folder => agent.copy_file(request).await?,
        Kind::Link(target) => agent.copy_file(CopyFileRequest { data: target, ..request }).await?,
        Kind::File(bytes) => {
            let file_size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            let mut offset = 0;
            // An empty file is one empty part.
            let parts = bytes.chunks(CHUNK).chain(bytes.is_empty().then_some(&[][..]));
            for part in parts {
                let request = CopyFileRequest { file_size, offset, data: part.into(), ..request.clone() };
                agent.copy_file(request).await?;
                offset += i64::try_from(part.len()).unwrap_or_default();
            }
        }
    }
    Ok(())
}
