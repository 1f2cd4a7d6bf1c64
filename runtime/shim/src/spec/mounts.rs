//! Mounts: file systems that the guest has itself, those on disks of the host, and binds, whose sources are brought.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::SpecError;
use crate::id::Id;
use crate::volumes::{Bind, FileSystem, ImageVolume, Placed, Volumes};

/// The pod's shared memory in the guest.
pub const SHM_FOLDER: &str = "/run/kata-containers/sandbox/shm";

/// File systems that are the guest kernel's.
const GUEST_TYPES: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// What a bind in the guest takes of the options of a mount that becomes one.
const BIND_OPTIONS: [&str; 6] = ["ro", "rw", "nosuid", "nodev", "noexec", "noatime"];
/// What is said of a mount alone, not of the file system.
const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// What has to be in the guest for a container's mounts.
#[derive(Debug, Default)]
pub struct Needs {
    /// Files and folders of the host.
    pub binds: Vec<Bind>,
    /// File systems on disks of the host.
    pub file_systems: Vec<FileSystem>,
    /// Images.
    pub images: Vec<ImageVolume>,
}

/// Rewrites the mounts for the guest and tells what to bring there first.
///
/// # Errors
/// A mount of a type that the guest can't have, or whose source can't be brought.
pub fn map(mounts: &mut [Mount], id: &Id, in_pod: bool, volumes: &Volumes) -> Result<Needs, SpecError> {
    let mut needs = Needs::default();
    for mount in mounts {
        let destination = mount.destination().clone();
        if is_bind(mount) {
            let source = mount.source().clone().ok_or_else(|| SpecError::NoSource(destination.clone()))?;
            mount.set_typ(Some("bind".into()));
            refuse_propagation(mount)?;
            // The sandbox's own; a volume can be mounted there, too.
            if in_pod && destination == Path::new("/dev/shm") && source.ends_with("shm") {
                mount.set_source(Some(SHM_FOLDER.into()));
                continue;
            }
            let placed = volumes.find(id, &destination, &source, is_read_only(mount))?;
            mount.set_source(Some(PathBuf::from(placed.guest())));
            needs.take(placed);
            continue;
        }
        let kind = mount.typ().clone().unwrap_or_default();
        if let Some(device) = mount.source().clone().filter(|source| source.starts_with("/dev/")) {
            refuse_propagation(mount)?;
            let options = mount.options().clone().unwrap_or_default();
            let (bind, own) = apart(&options);
            let file_system = Volumes::file_system(id, &destination, &device, &kind, &own)?;
            mount.set_typ(Some("bind".into()));
            mount.set_source(Some(PathBuf::from(file_system.guest())));
            mount.set_options(Some(bind));
            needs.file_systems.push(file_system);
            continue;
        }
        if !GUEST_TYPES.contains(&kind.as_str()) {
            return Err(SpecError::MountType { kind, destination });
        }
    }
    Ok(needs)
}

impl Needs {
    fn take(&mut self, placed: Placed) {
        match placed {
            Placed::Copied(bind) => self.binds.push(bind),
            Placed::Mounted(file_system) => self.file_systems.push(file_system),
            Placed::Image(image, _) => self.images.push(image),
        }
    }
}

/// Options for a bind mount in the guest, and those for the file system itself.
fn apart(options: &[String]) -> (Vec<String>, Vec<String>) {
    let is_propagation = |option: &&String| PROPAGATION.contains(&option.as_str());
    let for_bind =
        options.iter().filter(|option| is_propagation(option) || BIND_OPTIONS.contains(&option.as_str()));
    let bind = std::iter::once("rbind".to_owned()).chain(for_bind.cloned()).collect();
    (bind, options.iter().filter(|option| !is_propagation(option)).cloned().collect())
}

fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options.into_iter().any(|option| option == "bind" || option == "rbind")
}

fn is_read_only(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "ro" || option == "rro")
}

/// A mount that is made in the guest can't appear on the host.
fn refuse_propagation(mount: &Mount) -> Result<(), SpecError> {
    let options = mount.options().iter().flatten();
    match options.into_iter().find(|option| matches!(option.as_str(), "shared" | "rshared")) {
        Some(option) => {
            Err(SpecError::Propagation { option: option.clone(), destination: mount.destination().clone() })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_systems_options_are_not_those_of_its_mount() {
        let options = ["ro", "nosuid", "rslave", "data=journal"].map(str::to_owned);
        let (bind, own) = apart(&options);
        assert_eq!(bind, ["rbind", "ro", "nosuid", "rslave"]);
        assert_eq!(own, ["ro", "nosuid", "data=journal"]);
    }
}
