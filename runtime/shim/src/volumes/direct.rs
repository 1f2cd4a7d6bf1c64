//! Volumes that a storage driver has assigned to the pod as a disk.
//!
//! A storage driver that leaves mounting a volume to the guest says so in a file, by Kata's convention for
//! direct-assigned volumes (`docs/design/direct-blk-device-assignment.md` there): its folder is named after the place
//! where kubelet would otherwise find the volume mounted. What is in that place on the host is not looked at then.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use nacre_protocol::agent::FSGroup;
use nacre_protocol::types::FSGroupChangePolicy;
use serde::Deserialize;

use super::VolumeError;

/// Where the files are. SECURITY: only root writes below `/run`.
const FOLDER: &str = "/run/kata-containers/shared/direct-volumes";
const FILE: &str = "mountInfo.json";

/// What the file says, by the names of Kata's runtime in Go, or those of the one in Rust.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Assigned {
    #[serde(rename = "volume-type", alias = "volume_type")]
    kind: String,
    /// The disk on the host.
    pub device: PathBuf,
    /// The file system on it.
    #[serde(rename = "fstype", alias = "fs_type")]
    pub file_system: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// How to mount it.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What a storage driver has assigned for the volume at `place`, if it has.
///
/// # Errors
/// What it has assigned can't be had.
pub fn find(place: &Path) -> Result<Option<Assigned>, VolumeError> {
    find_below(Path::new(FOLDER), place)
}

fn find_below(folder: &Path, place: &Path) -> Result<Option<Assigned>, VolumeError> {
    let file = folder.join(URL_SAFE.encode(place.as_os_str().as_bytes())).join(FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
            return Ok(None);
        }
        Err(source) => return Err(VolumeError::Read { path: file, source }),
    };
    let failed = |why: String| VolumeError::Assignment { path: file.clone(), why };
    let assigned: Assigned = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    if !matches!(assigned.kind.as_str(), "block" | "directvol") {
        return Err(failed(format!("volumes of type {:?} are not supported; block is", assigned.kind)));
    }
    assigned.group().map_err(failed)?;
    Ok(Some(assigned))
}

impl Assigned {
    /// The group that the volume is given to.
    ///
    /// # Errors
    /// It is no number, or the policy is none of Kubernetes'.
    pub fn group(&self) -> Result<Option<FSGroup>, String> {
        let Some(id) = self.metadata.get("fsGroup") else { return Ok(None) };
        let group_id = id.parse().map_err(|_| format!("fsGroup {id:?} is no number of a group"))?;
        let policy = match self.metadata.get("fsGroupChangePolicy").map(String::as_str) {
            None | Some("" | "Always") => FSGroupChangePolicy::Always,
            Some("OnRootMismatch") => FSGroupChangePolicy::OnRootMismatch,
            Some(other) => return Err(format!("fsGroupChangePolicy {other:?} is not known")),
        };
        Ok(Some(FSGroup { group_id, group_change_policy: policy.into(), ..Default::default() }))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn assign(text: &str) -> Result<Option<Assigned>, VolumeError> {
        let folder = tempfile::tempdir().unwrap();
        let place = Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv/mount");
        // The first of `kubernetes.io~csi` and its neighbours that the two alphabets of base64 tell apart is the tilde.
        let name = "L3Zhci9saWIva3ViZWxldC9wb2RzL3Uvdm9sdW1lcy9rdWJlcm5ldGVzLmlvfmNzaS9wdi9tb3VudA==";
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join(FILE), text).unwrap();
        assert_eq!(find_below(folder.path(), Path::new("/another")).unwrap(), None);
        assert_eq!(find_below(folder.path(), Path::new(&format!("/{}", "x".repeat(4000)))).unwrap(), None);
        find_below(folder.path(), place)
    }

    #[rstest]
    #[case(r#"{"volume-type": "block", "device": "/dev/sdb", "fstype": "ext4", "metadata": {}, "options": ["ro"]}"#)]
    #[case(r#"{"volume_type": "directvol", "device": "/dev/sdb", "fs_type": "ext4", "options": ["ro"]}"#)]
    fn both_of_katas_runtimes_are_understood(#[case] text: &str) {
        let assigned = assign(text).unwrap().unwrap();
        assert_eq!((assigned.device, assigned.file_system.as_str()), ("/dev/sdb".into(), "ext4"));
        assert_eq!(assigned.options, ["ro"]);
    }

    #[test]
    fn the_group_is_read_with_its_policy() {
        let with = |metadata: &str| {
            let text = format!(
                r#"{{"volume-type": "block", "device": "/dev/b", "fstype": "ext4", "metadata": {metadata}}}"#
            );
            assign(&text).unwrap().unwrap().group().unwrap()
        };
        assert_eq!(with("{}"), None);
        assert_eq!(with(r#"{"fsGroup": "7"}"#).unwrap().group_id, 7);
        let once = with(r#"{"fsGroup": "7", "fsGroupChangePolicy": "OnRootMismatch"}"#).unwrap();
        assert_eq!(once.group_change_policy, FSGroupChangePolicy::OnRootMismatch.into());
    }

    #[rstest]
    #[case(r#"{"volume-type": "spdkvol", "device": "/dev/sdb", "fstype": "ext4"}"#, "spdkvol")]
    #[case(r#"{"volume-type": "block", "fstype": "ext4"}"#, "device")]
    #[case(
        r#"{"volume-type": "block", "device": "/dev/b", "fstype": "ext4", "metadata": {"fsGroup": "x"}}"#,
        "fsGroup"
    )]
    fn what_can_not_be_had_is_named(#[case] text: &str, #[case] word: &str) {
        let error = assign(text).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(FILE), "{error}");
    }
}
