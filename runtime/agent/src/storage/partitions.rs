//! Parts of the disk of volumes as block devices.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::block::disk;
use super::layers::disk::Disk;
use super::layers::extent::{self, Extent};
use crate::error::{Doing, Failure, Reply};
use crate::lock::lock;
use crate::teardown::Teardown;

/// The kernel's bound on the partitions of a disk.
const MAX_PARTITIONS: i32 = 255;

/// The partitions that exist and how many use each.
#[derive(Default)]
pub struct Partitions {
    partitions: Mutex<BTreeMap<(PathBuf, Extent), Partition>>,
}

struct Partition {
    number: i32,
    users: usize,
}

impl Partitions {
    /// Makes the extent that `options` name a block device, if it is none yet, and tells its path. Its release is added to
    /// the teardown.
    pub async fn add(
        self: &Arc<Self>,
        source: &str,
        options: &[String],
        teardown: &mut Teardown,
    ) -> Reply<PathBuf> {
        let extents: Vec<String> =
            options.iter().filter(|option| option.starts_with("extent=")).cloned().collect();
        let [extent] = extent::parse_all(&extents)?[..] else {
            return Err(Failure::invalid("a volume is one extent"));
        };
        let disk = Arc::new(Disk::open(disk(source)?)?);
        disk.wait_for_sectors(extent.end()).await?;
        let path = self.acquire(&disk, extent)?;
        let partitions = Arc::clone(self);
        teardown.push(format!("release {extent:?}"), move || partitions.release(&disk, extent));
        Ok(path)
    }

    fn acquire(&self, disk: &Disk, extent: Extent) -> Reply<PathBuf> {
        let mut partitions = lock(&self.partitions);
        let key = (disk.path().to_owned(), extent);
        if let Some(partition) = partitions.get_mut(&key) {
            partition.users += 1;
            return Ok(disk.partition_path(partition.number));
        }
        let is_free = |number: &i32| {
            partitions.iter().all(|((path, _), taken)| path != disk.path() || taken.number != *number)
        };
        let number = (1..=MAX_PARTITIONS)
            .find(is_free)
            .ok_or_else(|| Failure::precondition(format!("more than {MAX_PARTITIONS} volumes")))?;
        disk.add_partition(number, &extent).doing(&format!("make {extent:?} a partition"))?;
        partitions.insert(key, Partition { number, users: 1 });
        Ok(disk.partition_path(number))
    }

    fn release(&self, disk: &Disk, extent: Extent) -> std::io::Result<()> {
        let mut partitions = lock(&self.partitions);
        let key = (disk.path().to_owned(), extent);
        let Some(partition) = partitions.get_mut(&key) else { return Ok(()) };
        partition.users -= 1;
        if partition.users > 0 {
            return Ok(());
        }
        let number = partition.number;
        partitions.remove(&key);
        Ok(disk.delete_partition(number)?)
    }
}
