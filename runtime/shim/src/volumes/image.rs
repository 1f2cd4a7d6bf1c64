//! Image volumes: containerd 2.1 mounts the image's layers on the host, as an overlay in a folder for the pod. Its
//! layers go to the guest as those of a container's root do, instead of a copy of what the overlay shows.

use std::path::{Path, PathBuf};

use nacre_image::{Mount, RootFs};

use super::VolumeError;
use super::mounts::{self, HostMount};

/// The folder in containerd's state where it mounts them: `<this>/<pod>/<image>`.
const FOLDER: &str = "image-volumes";

/// An image that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVolume {
    /// Its layers on the host.
    pub layers: RootFs,
    /// Where the guest mounts it.
    pub guest: String,
}

/// An image volume on the host.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its layers.
    pub layers: RootFs,
    /// The part of it that is meant; empty for the whole.
    pub below: PathBuf,
}

/// The image volume that `path`, which has no links, is or is a part of. A volume whose layers are not named in a way
/// that we understand, as by another snapshotter, is a folder like any.
///
/// # Errors
/// The host's mounts can't be read.
pub fn find(path: &Path) -> Result<Option<Found>, VolumeError> {
    if !path.components().any(|part| part.as_os_str() == FOLDER) {
        return Ok(None);
    }
    let failed = |source| VolumeError::Read { path: path.into(), source };
    Ok(find_in(&mounts::read().map_err(failed)?, path))
}

fn find_in(table: &[HostMount], path: &Path) -> Option<Found> {
    let mount = mounts::of(table, path)?;
    let folder = mount.point.parent()?.parent()?;
    if mount.kind != "overlay" || folder.file_name()? != FOLDER {
        return None;
    }
    let overlay = Mount { kind: "overlay", source: "overlay", options: &mount.options };
    let layers = RootFs::from_mounts(&[overlay]).ok()?;
    let below = path.strip_prefix(&mount.point).ok()?.to_owned();
    Some(Found { point: mount.point.clone(), layers, below })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const POINT: &str = "/run/containerd/io.containerd.grpc.v1.cri/image-volumes/pod/0a1b";

    fn overlay(point: &str, options: &[&str]) -> HostMount {
        HostMount {
            device: (0, 77),
            root: "/".into(),
            point: point.into(),
            kind: "overlay".into(),
            source: "overlay".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn an_image_volume_is_its_layers() {
        let options = ["rw", "lowerdir=/s/2/fs:/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work", "volatile"];
        let table = [overlay(POINT, &options)];
        let found = find_in(&table, &Path::new(POINT).join("models/a")).unwrap();
        assert_eq!(found.layers.layers, [Path::new("/s/1/fs"), Path::new("/s/2/fs")]);
        assert_eq!(found.layers.upper.as_deref(), Some(Path::new("/s/3/fs")));
        assert_eq!((found.point, found.below), (POINT.into(), "models/a".into()));
    }

    #[rstest]
    #[case::relative_layers(POINT, &["rw", "lowerdir=2/fs:1/fs"])]
    #[case::unknown_option(POINT, &["rw", "lowerdir=/s/1/fs", "metacopy=on"])]
    #[case::elsewhere("/srv/merged/of/mine", &["rw", "lowerdir=/s/1/fs"])]
    fn what_is_not_understood_is_a_folder(#[case] point: &str, #[case] options: &[&str]) {
        assert_eq!(find_in(&[overlay(point, options)], Path::new(point)), None);
    }
}
