//! The layers that are mounted.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};

use super::disk::Disk;
use super::extent::Extent;
use crate::error::{Doing, Failure, Reply};
use crate::lock::lock;
use crate::teardown::{Teardown, unmount};

/// Where layers are mounted; short, since the options of an overlay must fit a page.
const FOLDER: &str = "/run/nacre/l";

/// The kernel's bound on the partitions of a disk.
const MAX_PARTITIONS: i32 = 255;

/// The layers that are mounted and how many containers use each. All is done on threads that may block.
#[derive(Default)]
pub struct Table {
    layers: Mutex<BTreeMap<(PathBuf, Extent), Layer>>,
}

struct Layer {
    partition: i32,
    folder: PathBuf,
    users: usize,
}

impl Table {
    /// Mounts the extents that are not, and says where all of them are. Their release is added to the teardown.
    pub fn mount_all(
        self: &Arc<Self>,
        disk: &Arc<Disk>,
        extents: &[Extent],
        teardown: &mut Teardown,
    ) -> Reply<Vec<PathBuf>> {
        let mut folders = Vec::with_capacity(extents.len());
        for extent in extents {
            folders.push(self.acquire(disk, extent)?);
            let (table, disk, extent) = (Arc::clone(self), Arc::clone(disk), *extent);
            teardown.push(format!("release {extent:?}"), move || table.release(&disk, &extent));
        }
        Ok(folders)
    }

    fn acquire(&self, disk: &Disk, extent: &Extent) -> Reply<PathBuf> {
        let mut layers = lock(&self.layers);
        let key = (disk.path().to_owned(), *extent);
        if let Some(layer) = layers.get_mut(&key) {
            layer.users += 1;
            return Ok(layer.folder.clone());
        }
        let number = free_number(&layers)?;
        let folder = add(disk, extent, number)?;
        layers.insert(key, Layer { partition: number, folder: folder.clone(), users: 1 });
        Ok(folder)
    }

    fn release(&self, disk: &Disk, extent: &Extent) -> std::io::Result<()> {
        let mut layers = lock(&self.layers);
        let key = (disk.path().to_owned(), *extent);
        let Some(layer) = layers.get_mut(&key) else { return Ok(()) };
        layer.users -= 1;
        if layer.users > 0 {
            return Ok(());
        }
        let Some(layer) = layers.remove(&key) else { return Ok(()) };
        unmount(&layer.folder)?;
        fs::remove_dir(&layer.folder)?;
        Ok(disk.delete_partition(layer.partition)?)
    }
}

/// Numbers are unique among all disks, so that they can name the folders.
fn free_number(layers: &BTreeMap<(PathBuf, Extent), Layer>) -> Reply<i32> {
    (1..=MAX_PARTITIONS)
        .find(|number| layers.values().all(|layer| layer.partition != *number))
        .ok_or_else(|| Failure::precondition(format!("more than {MAX_PARTITIONS} layers")))
}

fn add(disk: &Disk, extent: &Extent, number: i32) -> Reply<PathBuf> {
    let folder = PathBuf::from(FOLDER).join(number.to_string());
    fs::create_dir_all(&folder).doing("make a layer's folder")?;
    let mut done = Teardown::default();
    done.push_remove(&folder);
    let result =
        disk.add_partition(number, extent).doing(&format!("make {extent:?} a partition")).and_then(|()| {
            let partition = disk.partition_path(number);
            mount(Some(&partition), &folder, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
                .doing(&format!("mount {} as erofs", partition.display()))
                .inspect_err(|_| {
                    let _ = disk.delete_partition(number);
                })
        });
    match result {
        Ok(()) => Ok(folder),
        Err(failure) => {
            done.run();
            Err(failure)
        }
    }
}
