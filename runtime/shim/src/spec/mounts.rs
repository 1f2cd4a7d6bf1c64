//! Mounts: file systems that the guest has itself, and binds whose sources are copied.

use std::path::{Path, PathBuf};

use nacre_protocol::SHARED_FOLDER;
use oci_spec::runtime::Mount;
use sha2::{Digest, Sha256};

use super::SpecError;
use crate::id::Id;

/// The pod's shared memory in the guest.
pub const SHM_FOLDER: &str = "/run/kata-containers/sandbox/shm";

/// File systems that are the guest kernel's.
const GUEST_TYPES: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// A file or folder of the host that a container wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Its copy in the guest.
    pub guest: String,
}

/// Rewrites the mounts for the guest and tells what to copy.
///
/// # Errors
/// A mount of a type that the guest can't have.
pub fn map(mounts: &mut [Mount], id: &Id, in_pod: bool) -> Result<Vec<Bind>, SpecError> {
    let mut binds = Vec::new();
    for mount in mounts {
        let destination = mount.destination().clone();
        if is_bind(mount) {
            let source = mount.source().clone().ok_or_else(|| SpecError::NoSource(destination.clone()))?;
            mount.set_typ(Some("bind".into()));
            if in_pod && destination == Path::new("/dev/shm") {
                mount.set_source(Some(SHM_FOLDER.into()));
                continue;
            }
            let guest = guest_path(id, &destination, &source);
            mount.set_source(Some(PathBuf::from(&guest)));
            binds.push(Bind { source, guest });
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

/// `<container>-<16 hexadecimal digits>-<name>`: the digits tell apart binds of equal names.
fn guest_path(id: &Id, destination: &Path, source: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(destination.as_os_str().as_encoded_bytes());
    hash.update([0]);
    hash.update(source.as_os_str().as_encoded_bytes());
    let digits: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = source.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    format!("{SHARED_FOLDER}/{id}-{digits}-{name}")
}
