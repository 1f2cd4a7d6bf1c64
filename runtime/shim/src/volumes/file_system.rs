//! File systems on disks of the host, which the guest mounts.

use std::path::Path;

use nacre_protocol::agent::{FSGroup, Storage};

use super::VolumeError;
use super::direct::Assigned;
use super::disk::{Disk, Lent, extent};

/// Those that the guest kernel has.
const KNOWN: [&str; 4] = ["ext4", "ext3", "ext2", "erofs"];

/// A file system on a disk that a container mounts.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSystem {
    /// What it is on.
    pub disk: Disk,
    kind: String,
    options: Vec<String>,
    guest: String,
    group: Option<FSGroup>,
}

impl FileSystem {
    /// The file system of `kind` on `device`, for a mount on `inside` in the container and on `guest` before.
    ///
    /// # Errors
    /// There is no such disk, or the guest has no such file system.
    pub fn new(
        device: &Path,
        kind: &str,
        options: &[String],
        inside: &Path,
        guest: String,
    ) -> Result<Self, VolumeError> {
        if !KNOWN.contains(&kind) {
            return Err(VolumeError::FileSystem { path: device.into(), kind: kind.into() });
        }
        let is_read_only = kind == "erofs" || options.iter().any(|option| option == "ro");
        let disk = Disk::at(device, inside, is_read_only)?;
        let kept = options.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw")).cloned();
        Ok(Self { disk, kind: kind.into(), options: kept.collect(), guest, group: None })
    }

    /// That a storage driver has assigned.
    ///
    /// # Errors
    /// Those of [`FileSystem::new`].
    pub fn assigned(volume: &Assigned, inside: &Path, guest: String) -> Result<Self, VolumeError> {
        let plain = Self::new(&volume.device, &volume.file_system, &volume.options, inside, guest)?;
        Ok(Self { group: volume.group().unwrap_or_default(), ..plain })
    }

    /// Where the guest mounts it.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// How the agent is told. What another container of the pod may write is mounted so for all: a kernel mounts a disk
    /// once, and the container's own mount says what it may do.
    pub fn storage(&self, lent: &Lent) -> Storage {
        let mut options = self.options.clone();
        if lent.is_read_only() {
            options.push("ro".into());
        }
        Storage {
            driver: "nacre-volume".into(),
            source: "/dev/vdb".into(),
            fstype: self.kind.clone(),
            mount_point: self.guest.clone(),
            driver_options: vec![extent(lent.sectors())],
            options,
            fs_group: self.group.clone().into(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_the_guest_lacks_and_a_device_that_is_no_disk_are_named() {
        let new = |device: &str, kind: &str| {
            FileSystem::new(Path::new(device), kind, &[], Path::new("/data"), "/x".into()).unwrap_err()
        };
        let error = new("/dev/null", "xfs").to_string();
        assert!(error.contains("xfs") && error.contains("ext4"), "{error}");
        let error = new("/dev/null", "ext4").to_string();
        assert!(error.contains("/dev/null") && error.contains("no block device"), "{error}");
        assert!(new("/dev/none", "ext4").to_string().contains("/dev/none"));
    }
}
