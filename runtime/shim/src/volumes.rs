//! Bringing what containers mount from the host into the guest.
//!
//! Nothing is shared with the host by file: a bind mount's source is copied. What a copy means depends on the source:
//!
//! - a file is copied for each container, when that is made;
//! - a folder is copied once for the pod and shared by the containers that mount it or a part of it. While all of them
//!   mount it read-only the copy follows the host; from the first one that may write to it on, it is the pod's own;
//! - ConfigMaps, Secrets and the like always follow the host ([`follow`]);
//! - an emptyDir is memory of the guest, which begins with what the host's folder holds;
//! - an image is its layers, on the disk that carries those of containers ([`image`]);
//! - what a storage driver assigned as a disk is mounted in the guest ([`direct`]);
//! - what a container writes into its termination log comes back to the host's file at its end ([`termination`]).
//!   Nothing else comes back.

mod changes;
mod direct;
mod disk;
mod error;
mod file_system;
mod follow;
mod image;
mod mounts;
mod origin;
mod send;
mod termination;
mod walk;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nacre_configuration::Configuration;
use nacre_protocol::SHARED_FOLDER;
use nacre_protocol::agent::Storage;
use sha2::{Digest, Sha256};
use slog::Logger;
use tokio::sync::OnceCell;

use crate::agent::Agent;
use crate::container::Container;
use crate::error::TaskError;
use crate::id::Id;
use crate::vmm::Vmm;
use changes::{Changes, Manifest};
use disk::Disks;
pub use disk::{Disk, Lent};
pub use error::VolumeError;
pub use file_system::FileSystem;
use follow::Follower;
pub use image::ImageVolume;
use origin::{Kind, Origin};
use send::Put;
pub use termination::HostFile;
use walk::{Entry, Limits};

/// A folder of the host and its copy, which the pod's containers share.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    /// The copy in the guest.
    top: String,
    kind: Kind,
    /// Done when the copy is there.
    brought: OnceCell<()>,
    /// A container may write to the copy.
    is_written: AtomicBool,
}

impl Volume {
    /// Whether the copy is to be kept as the host's folder is.
    fn follows(&self) -> bool {
        match self.kind {
            Kind::Switched => true,
            Kind::Folder => !self.is_written.load(Ordering::Relaxed),
            Kind::Empty | Kind::EmptyMemory { .. } => false,
        }
    }
}

/// A bind mount of a container.
#[derive(Debug)]
pub struct Bind {
    /// On the host.
    source: PathBuf,
    /// In the container.
    destination: PathBuf,
    /// What is mounted in the guest instead of the source.
    guest: String,
    read_only: bool,
    part: Part,
}

impl Bind {
    /// Where it is mounted, if it is the container's termination log.
    pub fn termination_log(&self) -> Option<&Path> {
        let is_one = matches!(self.part, Part::File) && !self.read_only;
        (is_one && termination::is_one(&self.source, &self.destination)).then_some(&self.destination)
    }
}

/// What a mount of a container becomes.
#[derive(Debug)]
pub enum Placed {
    /// A copy of the host's file or folder.
    Copied(Bind),
    /// A file system on a disk of the host.
    Mounted(FileSystem),
    /// An image's layers, and where in the guest the part of it is that is mounted.
    Image(ImageVolume, String),
}

impl Placed {
    /// What is mounted in the guest instead of the source.
    pub fn guest(&self) -> &str {
        match self {
            Self::Copied(bind) => &bind.guest,
            Self::Mounted(file_system) => file_system.guest(),
            Self::Image(_, part) => part,
        }
    }
}

#[derive(Debug)]
enum Part {
    File,
    Of { volume: Arc<Volume>, below: PathBuf },
}

/// What was brought for one container alone.
#[derive(Debug, Default)]
pub struct Brought {
    /// Copies to be removed with it.
    files: Vec<String>,
    /// The host's termination log.
    termination_log: Option<HostFile>,
    /// Disks that it has, with others of the pod or alone. Taken when they are given back.
    disks: Mutex<Vec<Arc<Lent>>>,
}

impl Brought {
    /// With disks of the host.
    pub fn with_disks(self, disks: Vec<Arc<Lent>>) -> Self {
        Self { disks: Mutex::new(disks), ..self }
    }

    fn take_disks(&self) -> Vec<Arc<Lent>> {
        std::mem::take(&mut *self.disks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The host's file for the reason of the container's end.
    pub fn termination_log(&self) -> Option<&HostFile> {
        self.termination_log.as_ref()
    }

    /// Removes from the guest what was the container's alone.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn remove(&self, agent: &Agent) -> Result<(), TaskError> {
        for file in &self.files {
            send::remove(file, agent).await?;
        }
        Ok(())
    }
}

/// The volumes of a pod.
#[derive(Debug)]
pub struct Volumes {
    /// Guards the folders that are known, by their places on the host.
    known: Mutex<BTreeMap<PathBuf, Arc<Volume>>>,
    follower: OnceCell<Follower>,
    disks: Disks,
    log: Logger,
}

impl Volumes {
    /// None at first.
    pub fn new(log: Logger) -> Self {
        Self { known: Mutex::default(), follower: OnceCell::new(), disks: Disks::default(), log }
    }

    /// Finds out what a container's bind mount means, and its place in the guest.
    ///
    /// # Errors
    /// The source is not there or can't be had in a guest.
    pub fn find(
        &self,
        id: &Id,
        destination: &Path,
        source: &Path,
        read_only: bool,
    ) -> Result<Placed, VolumeError> {
        if let Some(volume) = direct::find(source)? {
            let guest = file_path(id, destination, source);
            return Ok(Placed::Mounted(FileSystem::assigned(&volume, destination, guest)?));
        }
        let path = fs::canonicalize(source)
            .map_err(|error| VolumeError::Read { path: source.into(), source: error })?;
        if let Some(found) = image::find(&path)? {
            let guest = file_path(id, destination, &found.point);
            let part = inside(&guest, &found.below, source)?;
            return Ok(Placed::Image(ImageVolume { layers: found.layers, guest }, part));
        }
        Ok(Placed::Copied(self.place(id, destination, source, read_only)?))
    }

    /// The file system of `kind` on a disk of the host, and its place in the guest.
    ///
    /// # Errors
    /// There is no such disk, or the guest has no such file system.
    pub fn file_system(
        id: &Id,
        destination: &Path,
        device: &Path,
        kind: &str,
        options: &[String],
    ) -> Result<FileSystem, VolumeError> {
        FileSystem::new(device, kind, options, destination, file_path(id, destination, device))
    }

    /// What a bind mount means that is neither an image nor a disk.
    fn place(
        &self,
        id: &Id,
        destination: &Path,
        source: &Path,
        read_only: bool,
    ) -> Result<Bind, VolumeError> {
        let bind = |guest, part| Bind {
            source: source.into(),
            destination: destination.into(),
            guest,
            read_only,
            part,
        };
        let origin = match origin::find(source)? {
            Origin::File { path } => self.part_of_known(&path).ok_or(None),
            Origin::Volume { root, below, kind: Kind::Folder } if below == Path::new("") => {
                self.part_of_known(&root).ok_or(Some((root, below, Kind::Folder)))
            }
            Origin::Volume { root, below, kind } => Err(Some((root, below, kind))),
        };
        let (volume, below) = match origin {
            Ok(known) => known,
            Err(None) => return Ok(bind(file_path(id, destination, source), Part::File)),
            Err(Some((root, below, kind))) => (self.volume(root, kind), below),
        };
        let guest = inside(&volume.top, &below, source)?;
        Ok(bind(guest, Part::Of { volume, below }))
    }

    fn volume(&self, root: PathBuf, kind: Kind) -> Arc<Volume> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let (top, is_written) = (volume_path(&root), AtomicBool::new(false));
            Arc::new(Volume { root: root.clone(), top, kind, brought: OnceCell::new(), is_written })
        };
        known.entry(root.clone()).or_insert_with(make).clone()
    }

    /// The known volume that a path lies in, and where in it.
    fn part_of_known(&self, path: &Path) -> Option<(Arc<Volume>, PathBuf)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        path.ancestors().find_map(|root| {
            let volume = known.get(root).filter(|volume| volume.brought.initialized())?;
            Some((volume.clone(), path.strip_prefix(root).ok()?.to_owned()))
        })
    }

    /// Brings everything that a container's binds name.
    ///
    /// # Errors
    /// What can't be copied, by name, or the agent's refusal.
    pub async fn bring(
        &self,
        binds: &[Bind],
        configuration: &Configuration,
        agent: &Agent,
    ) -> Result<Brought, TaskError> {
        let limits = Limits {
            file: configuration.binds.max_file_kib.bytes(),
            folder: configuration.binds.max_folder_kib.bytes(),
            entries: configuration.binds.max_folder_entries.get(),
        };
        let mut brought = Brought::default();
        for bind in binds {
            match &bind.part {
                Part::File => {
                    if bind.termination_log().is_some() {
                        let failed = |source| VolumeError::Read { path: bind.source.clone(), source };
                        brought.termination_log = Some(HostFile::open(&bind.source).map_err(failed)?);
                    }
                    let entries = read(bind.source.clone(), limits).await?;
                    let changes = Changes { put: entries, remove: Vec::new() };
                    send::changes(&bind.guest, changes, Put::Always, agent).await?;
                    brought.files.push(bind.guest.clone());
                }
                Part::Of { volume, below } => {
                    if !bind.read_only && !volume.is_written.swap(true, Ordering::Relaxed) {
                        slog::debug!(self.log, "volume is the pod's own"; "source" => volume.root.display());
                    }
                    volume.brought.get_or_try_init(|| self.first(volume, limits, agent)).await?;
                    if !volume.follows() {
                        complete(volume, below, limits, agent).await?;
                    }
                }
            }
        }
        Ok(brought)
    }

    /// Attaches a disk that a container asks for.
    ///
    /// # Errors
    /// It can't be attached.
    pub async fn lend(&self, disk: &Disk, vmm: &Vmm) -> Result<Arc<Lent>, TaskError> {
        self.disks.lend(disk, vmm).await
    }

    /// Whether the guest has disks of the host, to which it may have to write.
    pub async fn has_disks(&self) -> bool {
        self.disks.are_lent().await
    }

    /// Gives the disks of a container back that no other has.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn give_back(&self, container: &Container, vmm: &Vmm) -> Result<(), TaskError> {
        self.give_back_all(container.brought.take_disks(), vmm).await
    }

    /// Gives disks back that no container has.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn give_back_all(&self, disks: Vec<Arc<Lent>>, vmm: &Vmm) -> Result<(), TaskError> {
        for disk in disks {
            self.disks.give_back(disk, vmm).await?;
        }
        Ok(())
    }

    /// Makes a volume's copy.
    async fn first(&self, volume: &Arc<Volume>, limits: Limits, agent: &Agent) -> Result<(), TaskError> {
        if volume.follows() {
            let start = async || Follower::start(agent.clone(), limits, self.log.clone());
            return self.follower.get_or_try_init(start).await?.follow(volume.clone()).await;
        }
        if matches!(volume.kind, Kind::Empty | Kind::EmptyMemory { .. }) {
            match agent.add_volumes(vec![memory(volume)?]).await {
                // Kata's agent: then it is a folder, without a size of its own.
                Err(error) if error.is_unimplemented() => {}
                answer => answer?,
            }
        }
        let entries = read(volume.root.clone(), limits).await?;
        let (_, changes) = Manifest::default().change_to(entries);
        Ok(send::changes(&volume.top, changes, Put::Always, agent).await?)
    }
}

/// Makes the part of a volume that a container mounts, if the pod has nothing there: kubelet makes the folder of a
/// subPath on the host only.
async fn complete(volume: &Volume, below: &Path, limits: Limits, agent: &Agent) -> Result<(), TaskError> {
    let mut put = Vec::new();
    let mut parts: Vec<&Path> = below.ancestors().filter(|part| *part != Path::new("")).collect();
    parts.reverse();
    for part in parts {
        let path = volume.root.join(part);
        let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let found = if is_file { read(path, limits).await? } else { vec![walk::folder_entry(&path)?] };
        put.extend(found.into_iter().map(|entry| Entry { path: part.into(), ..entry }));
    }
    let changes = Changes { put, remove: Vec::new() };
    Ok(send::changes(&volume.top, changes, Put::IfAbsent, agent).await?)
}

/// Memory of the guest for an emptyDir, with the mode and owner that kubelet gave the host's folder.
fn memory(volume: &Volume) -> Result<Storage, VolumeError> {
    let failed = |source| VolumeError::Read { path: volume.root.clone(), source };
    let metadata = fs::metadata(&volume.root).map_err(failed)?;
    let mut options = vec![
        format!("mode={:o}", metadata.mode() & 0o7777),
        format!("uid={}", metadata.uid()),
        format!("gid={}", metadata.gid()),
    ];
    if let Kind::EmptyMemory { size } = volume.kind {
        options.push(format!("size={size}"));
    }
    Ok(Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: volume.top.clone(),
        options,
        shared: true,
        ..Default::default()
    })
}

async fn read(source: PathBuf, limits: Limits) -> Result<Vec<Entry>, VolumeError> {
    let read = move || walk::read(&source, limits, &mut |_| Ok(()));
    tokio::task::spawn_blocking(read).await.map_err(|_| VolumeError::Cut)?
}

/// The part `below` of what the guest has at `top`.
fn inside(top: &str, below: &Path, source: &Path) -> Result<String, VolumeError> {
    match below.to_str() {
        Some("") => Ok(top.to_owned()),
        Some(below) => Ok(format!("{top}/{below}")),
        None => Err(VolumeError::Name { path: source.into() }),
    }
}

/// `<container>-<16 hexadecimal digits>-<name>`: the digits tell apart binds of equal names.
fn file_path(id: &Id, destination: &Path, source: &Path) -> String {
    format!("{SHARED_FOLDER}/{id}-{}-{}", digits(&[destination, source]), name(source))
}

/// `volume-<16 hexadecimal digits>-<name>`.
fn volume_path(root: &Path) -> String {
    format!("{SHARED_FOLDER}/volume-{}-{}", digits(&[root]), name(root))
}

fn digits(paths: &[&Path]) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The last part of a path, as far as it is needed to recognise it.
fn name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.chars().map(|char| if char.is_ascii_graphic() { char } else { '_' }).take(64).collect()
}

#[cfg(test)]
mod tests;
