//! A container's root file system: from containerd's mounts to parts of the VM's layer disk.

use containerd_shim_protos::types::mount::Mount;
use nacre_configuration::Configuration;
use nacre_image::{LayerCache, LayerError, LayerImage, MountError, RootFs};
use nacre_protocol::agent::Storage;
use ttrpc::Code;

use crate::vmm::{LAYER_DISK, Sectors};

/// The agent's handler for this kind of root file system.
const DRIVER: &str = "nacre-layers";
/// The one for images that are mounted.
const IMAGE_DRIVER: &str = "nacre-image";

/// Why a container's layers could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// containerd's mounts.
    #[error(transparent)]
    Mounts(#[from] MountError),
    /// The cache or the conversion.
    #[error(transparent)]
    Image(#[from] LayerError),
    /// The thread that converts is gone.
    #[error("the conversion of image layers was cut short")]
    Cut,
}

impl LayersError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Mounts(MountError::Kind(_) | MountError::Count(_) | MountError::Option(_)) => {
                Code::UNIMPLEMENTED
            }
            Self::Mounts(_) => Code::INVALID_ARGUMENT,
            Self::Image(LayerError::NoSpace { .. }) => Code::RESOURCE_EXHAUSTED,
            Self::Image(LayerError::ToolMissing | LayerError::CacheWritable { .. }) => {
                Code::FAILED_PRECONDITION
            }
            Self::Image(_) | Self::Cut => Code::INTERNAL,
        }
    }
}

/// The layers of a root file system as images.
#[derive(Debug)]
pub struct Layers {
    /// Bottom first.
    pub images: Vec<LayerImage>,
    /// containerd asks for a root file system that is not written.
    pub read_only: bool,
}

/// Finds or makes the images for containerd's mounts, on a thread for blocking work.
///
/// # Errors
/// Mounts that are not the overlayfs snapshotter's, or a conversion that failed.
pub async fn prepare(mounts: &[Mount], configuration: &Configuration) -> Result<Layers, LayersError> {
    let mounts: Vec<nacre_image::Mount<'_>> = mounts
        .iter()
        .map(|mount| nacre_image::Mount {
            kind: &mount.type_,
            source: &mount.source,
            options: &mount.options,
        })
        .collect();
    let root = RootFs::from_mounts(&mounts)?;
    let read_only = root.read_only;
    Ok(Layers { images: images(root, configuration).await?, read_only })
}

/// Finds or makes the images for layers, on a thread for blocking work.
///
/// # Errors
/// A conversion that failed.
pub async fn images(root: RootFs, configuration: &Configuration) -> Result<Vec<LayerImage>, LayersError> {
    let image = configuration.image.clone();
    let convert = move || -> Result<Vec<LayerImage>, LayerError> {
        let conversions = usize::try_from(image.conversions.get()).unwrap_or(1);
        LayerCache::open(&image.cache_path, image.cache_limit_mib.bytes(), conversions)?.root_fs(&root)
    };
    Ok(tokio::task::spawn_blocking(convert).await.map_err(|_| LayersError::Cut)??)
}

/// Tells the agent where a container's layers are on the disk, bottom first, and where to lay them over each other.
pub fn storage(sectors: &[Sectors], mount_point: &str, read_only: bool) -> Storage {
    let options = if read_only { vec!["ro".into()] } else { Vec::new() };
    Storage { options, ..driven(DRIVER, sectors, mount_point) }
}

/// The same for an image that a container mounts, which nobody writes.
pub fn image_storage(sectors: &[Sectors], mount_point: &str) -> Storage {
    driven(IMAGE_DRIVER, sectors, mount_point)
}

fn driven(driver: &str, sectors: &[Sectors], mount_point: &str) -> Storage {
    let disk = char::from(b'a' + LAYER_DISK);
    Storage {
        driver: driver.into(),
        source: format!("/dev/vd{disk}"),
        fstype: "overlay".into(),
        mount_point: mount_point.into(),
        driver_options: sectors.iter().map(|(first, count)| format!("extent={first}:{count}")).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_told_sectors_and_place() {
        let storage = storage(&[(0, 8), (8, 16)], "/run/kata-containers/web/rootfs", true);
        assert_eq!(storage.source, "/dev/vda");
        assert_eq!(storage.driver_options, ["extent=0:8", "extent=8:16"]);
        assert_eq!(storage.options, ["ro"]);
        assert_eq!(image_storage(&[(0, 8)], "/x").driver, "nacre-image");
    }

    #[tokio::test]
    async fn a_snapshotter_that_is_not_supported_is_named() {
        let mount = Mount { type_: "btrfs".into(), source: "/dev/sda1".into(), ..Default::default() };
        let error = prepare(&[mount], &Configuration::default()).await.unwrap_err();
        assert!(error.to_string().contains("btrfs"), "{error}");
        assert_eq!(error.code(), Code::UNIMPLEMENTED);
    }
}
