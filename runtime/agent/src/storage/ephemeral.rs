//! `ephemeral`: memory of the guest as a file system, tmpfs or huge pages.

use async_trait::async_trait;
use nacre_protocol::agent::Storage;

use super::Driver;
use super::mount::{check_point, mount_at, options};
use crate::error::{Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

/// The driver.
pub struct Ephemeral;

#[async_trait]
impl Driver for Ephemeral {
    async fn mount(&self, storage: &Storage, _: Option<&ContainerId>, teardown: &mut Teardown) -> Reply<()> {
        let point = check_point(&storage.mount_point)?;
        let kind = match storage.fstype.as_str() {
            kind @ ("tmpfs" | "hugetlbfs") => kind,
            "" => "tmpfs",
            other => return Err(Failure::invalid(format!("ephemeral storage can't be {other:?}"))),
        };
        // The pod's /dev/shm may be asked for with each of its containers.
        if is_mount_point(point) {
            return Ok(());
        }
        let group = storage.options.iter().find_map(|option| option.strip_prefix("fsgid="));
        let group = group.map(|group| format!("gid={group},mode=2775"));
        let plain = storage.options.iter().map(String::as_str).filter(|option| !option.starts_with("fsgid="));
        let (flags, data) = options(plain.chain(group.as_deref()));
        mount_at(&storage.source, point, kind, flags, &data, teardown)
    }
}

fn is_mount_point(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Some(parent), Ok(own)) = (path.parent(), std::fs::metadata(path)) else { return false };
    std::fs::metadata(parent).is_ok_and(|parent| parent.dev() != own.dev())
}
