//! What the source of a bind mount is: a file, a part of one of Kubernetes' volumes, or any folder.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use super::VolumeError;
use super::mounts::{self, HostMount};

/// Folders of a pod's volumes by kubelet's plug-ins, whose content belongs to the pod.
const EMPTY: &str = "kubernetes.io~empty-dir";
/// Those whose content kubelet replaces by switching a link.
const SWITCHED: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
];
/// The link that kubelet switches.
pub const SWITCH: &str = "..data";

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file of no volume of kubelet's.
    File {
        /// Without links.
        path: PathBuf,
    },
    /// A volume or a part of it.
    Volume {
        /// The volume's folder on the host.
        root: PathBuf,
        /// The part below the root; empty for the whole.
        below: PathBuf,
        /// What kind it is.
        kind: Kind,
    },
}

/// What is known of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An emptyDir on the node's disk.
    Empty,
    /// An emptyDir in memory, and the size of its file system in bytes.
    EmptyMemory {
        /// kubelet sets it to the volume's sizeLimit.
        size: u64,
    },
    /// A folder whose content the host replaces by switching a link.
    Switched,
    /// Any other folder.
    Folder,
}

/// Looks at a source. Links on the way are followed, as a bind mount does.
///
/// # Errors
/// It is not there, or is neither file nor folder.
pub fn find(source: &Path) -> Result<Origin, VolumeError> {
    let failed = |error| VolumeError::Read { path: source.into(), source: error };
    let path = fs::canonicalize(source).map_err(failed)?;
    let file_type = fs::metadata(&path).map_err(failed)?.file_type();
    if !file_type.is_dir() && !file_type.is_file() {
        let kind = match () {
            () if file_type.is_socket() => "socket",
            () if file_type.is_fifo() => "fifo",
            () if file_type.is_block_device() => "block device",
            () => "device",
        };
        return Err(VolumeError::Kind { path: source.into(), kind });
    }
    let table = mounts::read().map_err(failed)?;
    Ok(of_kubelet(&path, &table).unwrap_or_else(|| {
        if file_type.is_file() {
            return Origin::File { path };
        }
        let kind = if path.join(SWITCH).is_symlink() { Kind::Switched } else { Kind::Folder };
        Origin::Volume { root: path, below: PathBuf::new(), kind }
    }))
}

/// A path in a pod's folder of kubelet: `…/pods/<uid>/volumes/<plug-in>/<name>/…` or
/// `…/pods/<uid>/volume-subpaths/<name>/<container>/<index>`.
fn of_kubelet(path: &Path, table: &[HostMount]) -> Option<Origin> {
    let names: Vec<&str> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let pods = names.iter().position(|name| *name == "pods")?;
    let pod: PathBuf = Path::new("/").join(names.get(..pods + 2)?.iter().collect::<PathBuf>());
    match names.get(pods + 2..)? {
        ["volumes", plugin, name, rest @ ..] => {
            let root = pod.join("volumes").join(plugin).join(name);
            let kind = kind(plugin, &root, table)?;
            Some(Origin::Volume { root, below: rest.iter().collect(), kind })
        }
        ["volume-subpaths", name, ..] => {
            let (root, kind) = volume_named(&pod, name, table)?;
            let below = below(path, &root, table)?;
            Some(Origin::Volume { root, below, kind })
        }
        _ => None,
    }
}

fn kind(plugin: &str, root: &Path, table: &[HostMount]) -> Option<Kind> {
    if SWITCHED.contains(&plugin) {
        return Some(Kind::Switched);
    }
    if plugin != EMPTY {
        return None;
    }
    let mount = mounts::of(table, root)?;
    if mount.kind != "tmpfs" || mount.point != root {
        return Some(Kind::Empty);
    }
    let size = nix::sys::statvfs::statvfs(root).ok()?;
    Some(Kind::EmptyMemory { size: size.blocks().saturating_mul(size.fragment_size()) })
}

/// The folder of a pod's volume of this name.
fn volume_named(pod: &Path, name: &str, table: &[HostMount]) -> Option<(PathBuf, Kind)> {
    let plugins = fs::read_dir(pod.join("volumes")).ok()?;
    plugins.filter_map(io::Result::ok).find_map(|plugin| {
        let root = plugin.path().join(name);
        let kind = kind(plugin.file_name().to_str()?, &root, table)?;
        root.is_dir().then_some((root, kind))
    })
}

/// Where in the volume at `root` the part is that is mounted on `path`.
fn below(path: &Path, root: &Path, table: &[HostMount]) -> Option<PathBuf> {
    let (part, whole) = (mounts::of(table, path)?, mounts::of(table, root)?);
    if part.device != whole.device {
        return None;
    }
    let part = mounts::within(part, path)?;
    Some(part.strip_prefix(mounts::within(whole, root)?).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    fn disk(point: &str, root: &str) -> HostMount {
        HostMount {
            device: (8, 1),
            root: root.into(),
            point: point.into(),
            kind: "ext4".into(),
            source: "/dev/sda1".into(),
            options: Vec::new(),
        }
    }

    #[rstest]
    #[case("configmap", Some(Kind::Switched))]
    #[case("projected", Some(Kind::Switched))]
    #[case("empty-dir", Some(Kind::Empty))]
    #[case("csi", None)]
    fn kubelets_volumes_are_known_by_their_plug_in(#[case] plugin: &str, #[case] expected: Option<Kind>) {
        let path = format!("/var/lib/kubelet/pods/u/volumes/kubernetes.io~{plugin}/v/sub/x");
        let found = of_kubelet(Path::new(&path), &[disk("/", "/")]);
        let root = PathBuf::from(format!("/var/lib/kubelet/pods/u/volumes/kubernetes.io~{plugin}/v"));
        assert_eq!(found, expected.map(|kind| Origin::Volume { root, below: "sub/x".into(), kind }));
    }

    #[test]
    fn a_sub_path_is_a_part_of_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let pod = folder.path().join("pods/u");
        let root = pod.join("volumes/kubernetes.io~empty-dir/cache");
        let part = pod.join("volume-subpaths/cache/web/0");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(&part).unwrap();
        let inside = format!("{}/a/b", root.display());
        let table = [disk("/", "/"), disk(part.to_str().unwrap(), &inside)];
        assert_eq!(
            of_kubelet(&part, &table),
            Some(Origin::Volume { root, below: "a/b".into(), kind: Kind::Empty })
        );
    }

    #[test]
    fn a_folder_with_the_link_is_one_that_switches() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let volume = |kind| Origin::Volume { root: root.clone(), below: PathBuf::new(), kind };
        assert_eq!(find(&root).unwrap(), volume(Kind::Folder));
        symlink("..1", root.join(SWITCH)).unwrap();
        assert_eq!(find(&root).unwrap(), volume(Kind::Switched));
        fs::write(root.join("file"), "").unwrap();
        assert_eq!(find(&root.join("file")).unwrap(), Origin::File { path: root.join("file") });
        assert!(find(Path::new("/dev/null")).unwrap_err().to_string().contains("device"));
        assert!(find(&root.join("none")).unwrap_err().to_string().contains("none"));
    }
}
