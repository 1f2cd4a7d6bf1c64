//! `cargo xtask release`: the files of a node, at their places, in a folder to copy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::Error;
use crate::progress::Progress;
use crate::{cache, guest, programs, stage0};

/// The programs that a node needs.
const PROGRAMS: [&str; 3] = ["containerd-shim-nacre-v2", "nacre-vmm", "nacre"];
/// Configuration files, from the checkout's `configuration` to the node's `/etc/nacre`.
const CONFIGURATION: [&str; 3] =
    ["nacre.toml", "containerd/containerd-1.7.toml", "containerd/containerd-2.toml"];

/// Builds everything and lays it out below `target/nacre` as it is installed below `/`.
///
/// # Errors
/// A build fails, or the folder can't be written.
pub fn run() -> Result<(), Error> {
    // Shows steps of its own when there is something to build.
    let kernel = guest::kernel()?;
    let mut progress = Progress::new(&["programs", "guest image", "files of a node"]);
    let programs = progress.step(programs::build)?;
    let (initrd, stage0) = progress.step(|| Ok((guest::image()?, stage0::image()?)))?;
    let root = cache::checkout().join("target/nacre");
    progress.step(|| {
        for name in PROGRAMS {
            place(&programs.join(name), &root.join("usr/local/bin").join(name), 0o755)?;
        }
        place(&kernel, &root.join("usr/share/nacre/vmlinux"), 0o644)?;
        place(&initrd, &root.join("usr/share/nacre/initrd.img"), 0o644)?;
        place(&stage0, &root.join("usr/share/nacre/stage0.bin"), 0o644)?;
        CONFIGURATION.iter().try_for_each(|name| {
            let from = cache::checkout().join("configuration").join(name);
            place(&from, &root.join("etc/nacre").join(name), 0o644)
        })
    })?;
    println!("{}", root.display());
    Ok(())
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(Error::file("can't make the folder", folder))?;
    }
    fs::copy(from, to).map_err(Error::file("can't copy to", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .map_err(Error::file("can't set the mode of", to))
}
