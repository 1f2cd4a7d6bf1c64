//! Disks of the host that containers get as block devices: parts of the VM's disk of volumes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nacre_protocol::agent::Device;
use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup};

use super::VolumeError;
use crate::error::TaskError;
use crate::vmm::{Sectors, VOLUME_DISK, Vmm};

/// A disk that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Major and minor number on the host.
    numbers: (u64, u64),
    /// Where it is in the container.
    inside: PathBuf,
    read_only: bool,
}

impl Disk {
    /// A device of a specification, with the rules of what may be done to devices.
    pub fn of(device: &LinuxDevice, rules: &[LinuxDeviceCgroup]) -> Self {
        let is_its = |rule: &&LinuxDeviceCgroup| {
            rule.allow() && rule.major() == Some(device.major()) && rule.minor() == Some(device.minor())
        };
        let access = rules.iter().rfind(is_its).and_then(|rule| rule.access().clone());
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            numbers: (number(device.major()), number(device.minor())),
            inside: device.path().clone(),
            read_only: access.is_some_and(|access| !access.contains('w')),
        }
    }

    /// The disk of this name on the host, by a link or not.
    ///
    /// # Errors
    /// There is no such disk.
    pub fn at(device: &Path, inside: &Path, read_only: bool) -> Result<Self, VolumeError> {
        let failed = |source| VolumeError::Read { path: device.into(), source };
        let metadata = fs::metadata(device).map_err(failed)?;
        if !metadata.file_type().is_block_device() {
            return Err(VolumeError::NoDisk { path: device.into() });
        }
        let numbers = (major(metadata.rdev()), minor(metadata.rdev()));
        Ok(Self { numbers, inside: inside.into(), read_only })
    }
}

/// A disk of the host that is a part of the VM's disk. While it is, nobody on the host can mount it.
#[derive(Debug)]
pub struct Lent {
    sectors: Sectors,
    numbers: (u64, u64),
    read_only: bool,
}

impl Lent {
    /// Where on the VM's disk it is.
    pub fn sectors(&self) -> Sectors {
        self.sectors
    }

    /// Whether it can't be written.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// How the agent is told.
    pub fn device(&self, disk: &Disk) -> Device {
        let mut options = vec![extent(self.sectors)];
        if disk.read_only {
            options.push("ro".into());
        }
        Device {
            id: format!("{}:{}", disk.numbers.0, disk.numbers.1),
            type_: "nacre-volume".into(),
            vm_path: "/dev/vdb".into(),
            container_path: disk.inside.display().to_string(),
            options,
            ..Default::default()
        }
    }
}

/// How the agent is told of a part of a disk.
pub fn extent((first, count): Sectors) -> String {
    format!("extent={first}:{count}")
}

/// The disks that a pod has, by their numbers.
#[derive(Debug, Default)]
pub struct Disks {
    /// Held while a disk is attached or given back, so that two containers get the same part.
    lent: tokio::sync::Mutex<BTreeMap<(u64, u64), std::sync::Weak<Lent>>>,
}

impl Disks {
    /// Attaches a disk, unless a container of the pod has it already.
    ///
    /// # Errors
    /// There is no such device, the host uses it, or the VMM refuses it.
    pub async fn lend(&self, disk: &Disk, vmm: &Vmm) -> Result<Arc<Lent>, TaskError> {
        let mut lent = self.lent.lock().await;
        if let Some(there) = lent.get(&disk.numbers).and_then(std::sync::Weak::upgrade) {
            if there.read_only && !disk.read_only {
                return Err(VolumeError::ReadOnlyDisk { path: disk.inside.clone() }.into());
            }
            return Ok(there);
        }
        let file = open(disk.numbers, disk.read_only)?;
        let sectors = vmm.grow(VOLUME_DISK, &[file]).await?;
        let sectors = *sectors.first().ok_or(VolumeError::Cut)?;
        let new = Arc::new(Lent { sectors, numbers: disk.numbers, read_only: disk.read_only });
        lent.insert(disk.numbers, Arc::downgrade(&new));
        Ok(new)
    }

    /// Whether the pod has any.
    pub async fn are_lent(&self) -> bool {
        self.lent.lock().await.values().any(|lent| lent.strong_count() > 0)
    }

    /// Gives a disk back if no other container of the pod has it.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn give_back(&self, disk: Arc<Lent>, vmm: &Vmm) -> Result<(), TaskError> {
        let mut lent = self.lent.lock().await;
        let Some(last) = Arc::into_inner(disk) else { return Ok(()) };
        lent.remove(&last.numbers);
        Ok(vmm.release(VOLUME_DISK, vec![last.sectors.0]).await?)
    }
}

/// Opens a block device by its numbers, for us alone.
fn open(numbers: (u64, u64), read_only: bool) -> Result<File, VolumeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY) => VolumeError::DiskInUse { path },
            _ => VolumeError::Read { path, source },
        }
    };
    // The kernel's own name for it, which devtmpfs has.
    let folder = PathBuf::from(format!("/sys/dev/block/{}:{}", numbers.0, numbers.1));
    let text = fs::read_to_string(folder.join("uevent")).map_err(failed(&folder))?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let path = Path::new("/dev").join(name.ok_or_else(|| failed(&folder)(io::ErrorKind::NotFound.into()))?);
    // Exclusive: it fails if the host has the device mounted or otherwise in use, and the host can't mount it later.
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(libc::O_EXCL)
        .open(&path)
        .map_err(failed(&path))?;
    let metadata = file.metadata().map_err(failed(&path))?;
    let found = (major(metadata.rdev()), minor(metadata.rdev()));
    if !metadata.file_type().is_block_device() || found != numbers {
        return Err(failed(&path)(io::ErrorKind::NotFound.into()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(rules: &str) -> Disk {
        let device = r#"{"path": "/dev/data", "type": "b", "major": 7, "minor": 3}"#;
        Disk::of(&serde_json::from_str(device).unwrap(), &serde_json::from_str::<Vec<_>>(rules).unwrap())
    }

    #[test]
    fn a_disk_is_read_only_if_its_rule_says_so() {
        let rule = |access: &str| {
            format!(
                r#"[{{"allow": false, "access": "rwm"}},
                    {{"allow": true, "type": "b", "major": 7, "minor": 3, "access": "{access}"}}]"#
            )
        };
        assert!(!disk(&rule("rwm")).read_only);
        assert!(disk(&rule("rm")).read_only);
        assert!(!disk("[]").read_only);
    }

    #[test]
    fn the_agent_is_told_where_a_disk_is() {
        let lent = Lent { sectors: (8, 2048), numbers: (7, 3), read_only: true };
        let device = lent.device(&Disk { read_only: true, ..disk("[]") });
        assert_eq!(device.options, ["extent=8:2048", "ro"]);
        assert_eq!(device.container_path, "/dev/data");
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = open((7, 99_999), false).unwrap_err().to_string();
        assert!(error.contains("7:99999"), "{error}");
    }
}
