//! `nacre-volume`: a file system on a part of the disk of volumes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use nacre_protocol::agent::Storage;
use nacre_protocol::types::FSGroupChangePolicy;
use nix::mount::MsFlags;
use nix::unistd::Gid;

use super::Driver;
use super::group::give;
use super::mount::{check_point, mount_at, options};
use super::partitions::Partitions;
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

/// The driver.
pub struct Volume {
    /// Shared with devices of containers.
    pub partitions: Arc<Partitions>,
}

#[async_trait]
impl Driver for Volume {
    async fn mount(&self, storage: &Storage, _: Option<&ContainerId>, teardown: &mut Teardown) -> Reply<()> {
        let point = check_point(&storage.mount_point)?.to_owned();
        let kind = match storage.fstype.as_str() {
            // The kernel's driver for all three.
            "ext2" | "ext3" | "ext4" => "ext4",
            "erofs" => "erofs",
            other => return Err(Failure::invalid(format!("a volume can't be mounted as {other:?}"))),
        };
        let source = self.partitions.add(&storage.source, &storage.driver_options, teardown).await?;
        let (flags, data) = options(storage.options.iter().map(String::as_str));
        let group = storage.fs_group.as_ref().map(|group| {
            let once = group.group_change_policy.enum_value() == Ok(FSGroupChangePolicy::OnRootMismatch);
            (Gid::from_raw(group.group_id), once)
        });
        let mounted = tokio::task::spawn_blocking(move || {
            let mut done = Teardown::default();
            let result = mount_at(&source.display().to_string(), &point, kind, flags, &data, &mut done);
            let result = result.and_then(|()| match group {
                // One that can't be written is as it is.
                Some((group, once)) if !flags.contains(MsFlags::MS_RDONLY) => {
                    give(&point, group, once).doing(&format!("give {} to its group", point.display()))
                }
                _ => Ok(()),
            });
            if result.is_ok() {
                // Also of what is still in use nothing may be lost when the VM ends.
                let mounted = point.clone();
                done.push(format!("write out {}", point.display()), move || write_out(&mounted));
            }
            (result, done)
        });
        let (result, done) = mounted.await.map_err(|error| Failure::internal("mount the volume", &error))?;
        teardown.append(done);
        result
    }
}

fn write_out(point: &Path) -> std::io::Result<()> {
    let file = File::open(point)?;
    Ok(nix::unistd::syncfs(file)?)
}
