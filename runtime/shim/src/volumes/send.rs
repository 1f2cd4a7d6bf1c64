//! Bringing entries into the guest.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nacre_protocol::agent::CopyFileRequest;
use nacre_protocol::nacre::{ChangeTreeRequest, TreeEntry};

use super::changes::Changes;
use super::walk::{Entry, Kind};
use crate::agent::{Agent, AgentError};

/// As much goes into one request; a message of ttrpc holds 4 MiB.
const PART: usize = 1 << 20;
/// Entries of one request, so that those of long paths fit as well.
const ENTRIES: usize = 256;
/// Folders that the guest makes on the way.
const FOLDER_MODE: u32 = 0o755;

/// How an entry is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// In place of what is there.
    Always,
    /// Only where there is nothing.
    IfAbsent,
}

/// Makes changes to the copy at `root`, a path of the guest.
///
/// # Errors
/// The agent's refusal. Some of the changes may be made then.
pub async fn changes(root: &str, changes: Changes, how: Put, agent: &Agent) -> Result<(), AgentError> {
    let Changes { put, remove } = changes;
    let mut batch = ChangeTreeRequest { root: root.into(), ..Default::default() };
    let mut size = 0;
    for entry in put {
        let length = match &entry.kind {
            Kind::File(bytes) if bytes.len() > PART && how == Put::Always => {
                // In order: what came before has to be there first.
                flush(&mut batch, agent).await?;
                size = 0;
                copy(root, entry, agent).await?;
                continue;
            }
            Kind::File(bytes) | Kind::Link(bytes) => bytes.len(),
            Kind::Folder => 0,
        };
        if size + length > PART || batch.put.len() >= ENTRIES {
            flush(&mut batch, agent).await?;
            size = 0;
        }
        size += length;
        batch.put.push(tree_entry(entry, how));
    }
    batch.remove = remove.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    flush(&mut batch, agent).await
}

/// Removes a copy.
///
/// # Errors
/// The agent's refusal.
pub async fn remove(root: &str, agent: &Agent) -> Result<(), AgentError> {
    let remove = vec![Vec::new()];
    agent.change_tree(ChangeTreeRequest { root: root.into(), remove, ..Default::default() }).await
}

fn tree_entry(entry: Entry, how: Put) -> TreeEntry {
    TreeEntry {
        path: entry.path.as_os_str().as_bytes().to_vec(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        data: match entry.kind {
            Kind::File(bytes) | Kind::Link(bytes) => bytes,
            Kind::Folder => Vec::new(),
        },
        only_if_absent: how == Put::IfAbsent,
        ..Default::default()
    }
}

async fn flush(batch: &mut ChangeTreeRequest, agent: &Agent) -> Result<(), AgentError> {
    let rest = ChangeTreeRequest { root: batch.root.clone(), ..Default::default() };
    let full = std::mem::replace(batch, rest);
    if full.put.is_empty() && full.remove.is_empty() {
        return Ok(());
    }
    match agent.change_tree(full.clone()).await {
        // Kata's agent copies one by one and can't remove anything.
        Err(error) if error.is_unimplemented() => {
            for entry in full.put {
                copy(&full.root, plain_entry(entry), agent).await?;
            }
            Ok(())
        }
        answer => answer,
    }
}

fn plain_entry(entry: TreeEntry) -> Entry {
    let kind = match entry.mode & libc::S_IFMT {
        libc::S_IFDIR => Kind::Folder,
        libc::S_IFLNK => Kind::Link(entry.data),
        _ => Kind::File(entry.data),
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path)).to_owned();
    Entry { path, mode: entry.mode, uid: entry.uid, gid: entry.gid, kind }
}

/// Copies one entry by the call that each agent has.
async fn copy(root: &str, entry: Entry, agent: &Agent) -> Result<(), AgentError> {
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
        Kind::Folder => agent.copy_file(request).await,
        Kind::Link(target) => agent.copy_file(CopyFileRequest { data: target, ..request }).await,
        Kind::File(bytes) => {
            let file_size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            let mut offset = 0;
            // An empty file is one empty part.
            let parts = bytes.chunks(PART).chain(bytes.is_empty().then_some(&[][..]));
            for part in parts {
                let request = CopyFileRequest { file_size, offset, data: part.into(), ..request.clone() };
                agent.copy_file(request).await?;
                offset += i64::try_from(part.len()).unwrap_or_default();
            }
            Ok(())
        }
    }
}
