//! A container's root file system as read-only EROFS images: one for each layer, made once per node.
//!
//! [`RootFs::from_mounts`] reads what containerd's overlayfs snapshotter gives, [`LayerCache::root_fs`] turns it into
//! opened files, bottom layer first. What was not there yet is made with `mkfs.erofs` and kept; a file stays in the
//! cache at least as long as somebody has it open. All calls block: an async caller puts them on a thread for
//! blocking work.
//!
//! ```no_run
//! use nacre_image::{LayerCache, Mount, RootFs};
//!
//! let options = ["lowerdir=/var/lib/layers/2/fs:/var/lib/layers/1/fs".to_owned()];
//! let mount = Mount { kind: "overlay", source: "overlay", options: &options };
//! let root = RootFs::from_mounts(&[mount])?;
//! let cache = LayerCache::open("/var/lib/nacre/layers".as_ref(), 16 << 30, 2)?;
//! for image in cache.root_fs(&root)? {
//!     println!("{} sectors", image.bytes() / 512);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod error;
mod image;
mod key;
mod mkfs;
mod rootfs;
mod survey;

pub use cache::{LayerCache, note};
pub use error::LayerError;
pub use image::LayerImage;
pub use rootfs::{Mount, MountError, RootFs};
