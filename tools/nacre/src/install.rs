//! `nacre install` and `nacre uninstall`: nacre on a node, from a container that has the node's root mounted.
//!
//! Each version has a folder of its own, and a link says which one counts. An upgrade adds a folder and replaces the
//! link in one step: pods that run keep the files that they were started from.

mod containerd;
mod versions;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal};
use thiserror::Error;

use crate::keys;

/// Where a node's programs are.
const PROGRAMS: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// Options of `nacre install`.
#[derive(Debug, clap::Args)]
pub struct InstallArguments {
    #[command(flatten)]
    node: Node,
    /// Where the files to install are, laid out as below the root of a node
    #[arg(long, value_name = "DIR", default_value = "/")]
    from: PathBuf,
}

/// Options of both.
#[derive(Debug, clap::Args)]
pub struct Node {
    /// The node's root
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// Leaves it to somebody else to restart containerd when its configuration changed
    #[arg(long)]
    no_restart: bool,
    /// Waits for SIGTERM when all is done, as a DaemonSet's container has to
    #[arg(long)]
    stay: bool,
}

/// Why a node is not as it should be.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A file.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// containerd's configuration can't be changed safely.
    #[error("{} is not changed: {why}", path.display())]
    Containerd {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Pods would lose their programs.
    #[error("pods still run with nacre {}; delete them first", versions.join(", "))]
    InUse {
        /// The versions that run.
        versions: Vec<String>,
    },
    /// containerd does not restart.
    #[error("containerd was not restarted: {0}; restart it for the new configuration to count")]
    Restart(String),
    /// The node's root is not where it was said to be.
    #[error("{} is no folder: mount the node's root there, or correct --host-root", .0.display())]
    NoRoot(PathBuf),
    /// Containers could not start.
    #[error(
        "the node has no mkfs.erofs, which makes the layers of containers readable: install erofs-utils there"
    )]
    NoErofs,
    /// The simulated platform would have no reports.
    #[error("the keys of the simulated platform can't be made")]
    Keys(#[from] keys::Error),
}

impl InstallError {
    /// For [`Result::map_err`].
    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Installs or upgrades.
///
/// # Errors
/// See [`InstallError`]. What ran before still does.
pub fn install(arguments: &InstallArguments) -> Result<String, InstallError> {
    let Node { host_root, no_restart, stay } = &arguments.node;
    check(host_root)?;
    if !PROGRAMS.iter().any(|folder| host_root.join(folder).join("mkfs.erofs").exists()) {
        return Err(InstallError::NoErofs);
    }
    let version = versions::install(&arguments.from, host_root)?;
    // They take a while: before anything restarts.
    print!("{}", keys::of_node(host_root)?);
    let changed = containerd::add_handler(host_root)?;
    println!("nacre {version} is installed; containerd's configuration {}", said(changed));
    finish(host_root, changed && !no_restart, *stay)
}

/// Takes nacre away.
///
/// # Errors
/// See [`InstallError`]; pods of nacre still run.
pub fn uninstall(node: &Node) -> Result<String, InstallError> {
    check(&node.host_root)?;
    let running = versions::in_use(&node.host_root, Path::new("/proc"));
    if !running.is_empty() {
        return Err(InstallError::InUse { versions: running });
    }
    let changed = containerd::remove_handler(&node.host_root)?;
    versions::remove(&node.host_root)?;
    println!("nacre is removed; containerd's configuration {}", said(changed));
    finish(&node.host_root, changed && !node.no_restart, node.stay)
}

/// Not made when it is missing: a container that lacks the mount would install into itself.
fn check(host_root: &Path) -> Result<(), InstallError> {
    if host_root.is_dir() { Ok(()) } else { Err(InstallError::NoRoot(host_root.to_owned())) }
}

const fn said(changed: bool) -> &'static str {
    if changed { "was changed" } else { "is as it was" }
}

fn finish(host_root: &Path, restart: bool, stay: bool) -> Result<String, InstallError> {
    if restart {
        restart_containerd(host_root)?;
    }
    if stay {
        let mut ends = SigSet::empty();
        ends.add(Signal::SIGTERM);
        ends.add(Signal::SIGINT);
        // Blocked first: as the first process of a container it would not even get them.
        let _ = ends.thread_block();
        let _ = ends.wait();
    }
    Ok(String::new())
}

/// By the node's own systemctl. Shims and their pods go on: containerd's service kills containerd alone.
fn restart_containerd(host_root: &Path) -> Result<(), InstallError> {
    if host_root != Path::new("/") {
        let chroot = nix::unistd::chroot(host_root).and_then(|()| nix::unistd::chdir("/"));
        chroot.map_err(|errno| InstallError::Restart(errno.to_string()))?;
    }
    let mut systemctl = Command::new("systemctl");
    // It would do nothing in a changed root, which it takes for a container being built.
    systemctl.args(["try-restart", "containerd.service"]).env("SYSTEMD_IGNORE_CHROOT", "1");
    let output = systemctl.stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(InstallError::Restart(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(InstallError::Restart(format!("systemctl: {error}"))),
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), InstallError> {
    let new = path.with_extension("nacre-new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(InstallError::file("can't make the folder", folder))?;
    }
    std::fs::write(&new, text).map_err(InstallError::file("can't write", &new))?;
    if let Ok(metadata) = std::fs::metadata(path) {
        let _ = std::fs::set_permissions(&new, metadata.permissions());
    }
    std::fs::rename(&new, path).map_err(InstallError::file("can't replace", path))
}

#[cfg(test)]
mod tests;
