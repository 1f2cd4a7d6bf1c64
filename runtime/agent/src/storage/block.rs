//! `blk` and `mmioblk`: a disk of the VM with a file system on it.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use async_trait::async_trait;
use nacre_protocol::agent::Storage;

use super::Driver;
use super::mount::{check_point, mount_at, options};
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

/// The driver.
pub struct Block;

#[async_trait]
impl Driver for Block {
    async fn mount(&self, storage: &Storage, _: Option<&ContainerId>, teardown: &mut Teardown) -> Reply<()> {
        let point = check_point(&storage.mount_point)?.to_owned();
        let source = disk(&storage.source)?.to_owned();
        if let Some(option) = storage.driver_options.first() {
            return Err(Failure::invalid(format!("the driver option {option:?} of a disk is not supported")));
        }
        let kind = match storage.fstype.as_str() {
            kind @ ("ext4" | "erofs" | "xfs") => kind.to_owned(),
            other => return Err(Failure::invalid(format!("a disk can't be mounted as {other:?}"))),
        };
        let (flags, data) = options(storage.options.iter().map(String::as_str));
        let mounted = tokio::task::spawn_blocking(move || {
            let mut done = Teardown::default();
            let result = mount_at(&source, &point, &kind, flags, &data, &mut done);
            (result, done)
        });
        let (result, done) = mounted.await.map_err(|error| Failure::internal("mount the disk", &error))?;
        teardown.append(done);
        result
    }
}

/// Checks that this names a disk.
pub fn disk(source: &str) -> Reply<&str> {
    let name =
        source.strip_prefix("/dev/").filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if name.is_none_or(str::is_empty) {
        return Err(Failure::invalid(format!("{source:?} does not name a disk by its path in /dev")));
    }
    let kind = Path::new(source).metadata().doing(&format!("look at {source}"))?.file_type();
    if !kind.is_block_device() {
        return Err(Failure::invalid(format!("{source} is not a disk")));
    }
    Ok(source)
}
