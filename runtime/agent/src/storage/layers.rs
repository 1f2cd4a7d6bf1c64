//! `nacre-layers`: a root file system out of image layers; `nacre-image`: an image that a container mounts.
//!
//! The layers are EROFS images, each an extent of one read-only disk of the VM. Each extent becomes a partition and a
//! mount, shared by the containers that use it; an overlay joins those of one container, with a writable layer in memory
//! if they are its root. The disk grows while the VM runs: an extent beyond its end is waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use nacre_protocol::agent::Storage;
use nix::mount::MsFlags;

use super::Driver;
use super::block::disk;
use super::mount::{check_point, mount_at};
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

pub(super) mod disk;
pub(super) mod extent;
mod table;

use disk::Disk;
use extent::Extent;
use table::Table;

/// What layers are joined to.
#[derive(Clone, Copy)]
enum Use {
    /// A root, which can be written.
    Root,
    /// An image, which can't.
    Image,
}

/// The drivers.
pub struct Layers {
    table: Arc<Table>,
    layers_are: Use,
}

impl Layers {
    /// The drivers for roots and for images, which share the layers that are mounted.
    pub fn drivers() -> [Self; 2] {
        let table = Arc::<Table>::default();
        [Use::Root, Use::Image].map(|layers_are| Self { table: Arc::clone(&table), layers_are })
    }
}

#[async_trait]
impl Driver for Layers {
    async fn mount(
        &self,
        storage: &Storage,
        container: Option<&ContainerId>,
        teardown: &mut Teardown,
    ) -> Reply<()> {
        let container = container.ok_or_else(|| Failure::invalid("layers without a container"))?;
        let extents = extent::parse_all(&storage.driver_options)?;
        let point = check_point(&storage.mount_point)?.to_owned();
        let disk = Arc::new(Disk::open(disk(&storage.source)?)?);
        disk.wait_for_sectors(extents.iter().map(Extent::end).max().unwrap_or_default()).await?;
        let table = Arc::clone(&self.table);
        let (folder, layers_are) = (container.folder(), self.layers_are);
        let mounted = tokio::task::spawn_blocking(move || {
            let mut done = Teardown::default();
            let result = table.mount_all(&disk, &extents, &mut done).and_then(|layers| match layers_are {
                Use::Root => join(&layers, &point, &folder, &mut done),
                Use::Image => show(&layers, &point, &mut done),
            });
            (result, done)
        });
        let (result, done) = mounted.await.map_err(|error| Failure::internal("mount the layers", &error))?;
        teardown.append(done);
        result
    }
}

/// Lays the layers, bottom first, over one another, with a writable layer on top. Also a root that is read-only in
/// the end needs that layer: mount points and links are made in it first.
fn join(layers: &[PathBuf], point: &Path, container: &Path, teardown: &mut Teardown) -> Reply<()> {
    let scratch = container.join("scratch");
    mount_at("tmpfs", &scratch, "tmpfs", MsFlags::empty(), "mode=0755", teardown)?;
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for folder in [&upper, &work] {
        fs::create_dir(folder).doing("make the writable layer")?;
    }
    let data = format!("lowerdir={},upperdir={},workdir={}", lower(layers), upper.display(), work.display());
    mount_at("overlay", point, "overlay", MsFlags::empty(), &data, teardown)
}

/// Lays the layers, bottom first, over one another, or shows a single one, for which there is no overlay.
fn show(layers: &[PathBuf], point: &Path, teardown: &mut Teardown) -> Reply<()> {
    match layers {
        [layer] => mount_at(&layer.display().to_string(), point, "", MsFlags::MS_BIND, "", teardown),
        _ => {
            let data = format!("lowerdir={}", lower(layers));
            mount_at("overlay", point, "overlay", MsFlags::MS_RDONLY, &data, teardown)
        }
    }
}

/// As an overlay lists its layers: the uppermost first.
fn lower(layers: &[PathBuf]) -> String {
    let layers: Vec<_> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    layers.join(":")
}
