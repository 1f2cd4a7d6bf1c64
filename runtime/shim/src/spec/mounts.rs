//! Mounts: file systems that the guest has itself, and binds whose sources are copied.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::SpecError;
use crate::id::Id;
use crate::volumes::{Bind, Volumes};

/// The pod's shared memory in the guest.
pub const SHM_FOLDER: &str = "/run/kata-containers/sandbox/shm";

/// File systems that are the guest kernel's.
const GUEST_TYPES: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// Rewrites the mounts for the guest and tells what to copy.
///
/// # Errors
/// A mount of a type that the guest can't have.
pub fn map(mounts: &mut [Mount], id: &Id, in_pod: bool, volumes: &Volumes) -> Result<Vec<Bind>, SpecError> {
    let mut binds = Vec::new();
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
            let bind = volumes.place(id, &destination, &source, is_read_only(mount))?;
            mount.set_source(Some(PathBuf::from(bind.guest())));
            binds.push(bind);
            continue;
        }
        let kind = mount.typ().clone().unwrap_or_default();
        if !GUEST_TYPES.contains(&kind.as_str()) {
            return Err(SpecError::MountType { kind, destination });
        }
    }
    Ok(binds)
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
