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
        let kind = file_system(&storage.fstype)?.to_owned();
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

/// The file systems on disks that the guest kernel has. SECURITY: a file system's driver takes what is on the disk for
/// what its own kernel once wrote, so each more is a way in for whoever wrote the disk.
fn file_system(wanted: &str) -> Reply<&str> {
    const KNOWN: [&str; 2] = ["ext4", "erofs"];
    KNOWN.into_iter().find(|known| *known == wanted).ok_or_else(|| {
        let known = KNOWN.join(" and ");
        Failure::invalid(format!(
            "a disk can't be mounted as {wanted:?}: the guest kernel knows {known}; format the disk as ext4"
        ))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_the_guest_kernel_lacks_is_refused_with_those_it_has() {
        assert_eq!(file_system("ext4").expect("known"), "ext4");
        let failure = file_system("xfs").expect_err("not in the kernel");
        let refused = failure.text();
        assert!(refused.contains("\"xfs\"") && refused.contains("ext4 and erofs"), "{refused}");
    }
}
