//! `cargo xtask release`: the files of a node, at their places, in a folder to copy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::progress::Progress;
use crate::{cache, command, guest, programs, stage0};

/// The programs that a node needs.
const PROGRAMS: [&str; 3] = ["containerd-shim-nacre-v2", "nacre-vmm", "nacre"];
/// Files from the checkout's `configuration` and their places on a node.
const PLACED: [(&str, &str); 2] = [
    ("systemd/nacre-metrics.service", "usr/local/lib/systemd/system/nacre-metrics.service"),
    ("kubernetes/runtimeclass.yaml", "usr/local/share/nacre/runtimeclass.yaml"),
];
/// The shells that complete our command, and where they look for it.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/local/share/bash-completion/completions/nacre"),
    ("zsh", "usr/local/share/zsh/site-functions/_nacre"),
    ("fish", "usr/local/share/fish/vendor_completions.d/nacre.fish"),
];
const MANUAL: &str = "usr/local/share/man/man1";
/// Configuration files, from the checkout's `configuration` to the node's `/etc/nacre`.
const CONFIGURATION: [&str; 3] =
    ["nacre.toml", "containerd/containerd-1.7.toml", "containerd/containerd-2.toml"];

/// Builds everything, lays it out and prints where.
///
/// # Errors
/// Those of [`build`].
pub fn run() -> Result<(), Error> {
    println!("{}", build()?.display());
    Ok(())
}

/// Builds everything and lays it out below `target/nacre` as it is installed below `/`; returns that folder.
///
/// # Errors
/// A build fails, or the folder can't be written.
pub fn build() -> Result<PathBuf, Error> {
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
        for (from, to) in PLACED {
            place(&cache::checkout().join("configuration").join(from), &root.join(to), 0o644)?;
        }
        document(&programs.join("nacre"), &root)?;
        CONFIGURATION.iter().try_for_each(|name| {
            let from = cache::checkout().join("configuration").join(name);
            place(&from, &root.join("etc/nacre").join(name), 0o644)
        })
    })?;
    Ok(root)
}

/// Manual pages and completion, which the command makes itself.
fn document(nacre: &Path, root: &Path) -> Result<(), Error> {
    command::output(Command::new(nacre).arg("manual").arg(root.join(MANUAL)))?;
    for (shell, path) in COMPLETIONS {
        let (script, path) =
            (command::output(Command::new(nacre).args(["completion", shell]))?, root.join(path));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::file("can't make the folder", folder))?;
        }
        fs::write(&path, script).map_err(Error::file("can't write", &path))?;
    }
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
