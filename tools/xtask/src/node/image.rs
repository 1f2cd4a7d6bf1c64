//! The node's root image: Debian from the machine's own mirror, cut down to what starts fast under emulation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Suite, kernel};
use crate::cache::{self, Key};
use crate::command;
use crate::debian::{Archive, fetch_options};
use crate::error::Error;
use crate::packages;
use crate::progress::Note;

/// What the node has installed, without what is only recommended. QEMU is there for the benchmark to compare with.
const PACKAGES: [&str; 20] = [
    "busybox-static",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "e2fsprogs",
    "erofs-utils",
    "iproute2",
    "iptables",
    "kmod",
    "linux-image-cloud-amd64",
    "nftables",
    "openssh-server",
    "procps",
    "qemu-system-x86",
    "runc",
    "socat",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// A file of ours in it: path, mode, content.
type Content = (&'static str, u32, &'static str);

/// Our files in the node of any suite.
const FILES: [Content; 11] = [
    ("etc/systemd/system/node.target", 0o644, include_str!("rootfs/node.target")),
    ("etc/systemd/system/node-setup.service", 0o644, include_str!("rootfs/node-setup.service")),
    ("etc/systemd/system/node-ready.service", 0o644, include_str!("rootfs/node-ready.service")),
    ("usr/local/sbin/node-setup", 0o755, include_str!("rootfs/node-setup")),
    ("usr/local/sbin/node-ready", 0o755, include_str!("rootfs/node-ready")),
    ("etc/ssh/sshd_config", 0o644, include_str!("rootfs/sshd.conf")),
    ("etc/systemd/system/ssh.service.d/node.conf", 0o644, include_str!("rootfs/ssh.service.conf")),
    ("etc/systemd/journald.conf.d/node.conf", 0o644, include_str!("rootfs/journald.conf")),
    ("etc/cni/net.d/10-bridge.conflist", 0o644, include_str!("rootfs/cni-bridge.conflist")),
    ("etc/cni/ptp/10-ptp.conflist", 0o644, include_str!("rootfs/cni-ptp.conflist")),
    ("etc/hosts", 0o644, "127.0.0.1 localhost nacre-node\n::1 localhost\n"),
];

/// containerd's configuration, with what we tell users to add to theirs.
const CONTAINERD_1_7: [Content; 1] = [(
    "etc/containerd/config.toml",
    0o644,
    concat!(
        include_str!("rootfs/containerd-1.7.toml"),
        include_str!("../../../../configuration/containerd/containerd-1.7.toml")
    ),
)];
const CONTAINERD_2: [Content; 2] = [
    ("etc/containerd/config.toml", 0o644, include_str!("rootfs/containerd-2.toml")),
    (
        "etc/containerd/conf.d/nacre.toml",
        0o644,
        include_str!("../../../../configuration/containerd/containerd-2.toml"),
    ),
];

/// All our files in the node of a suite.
fn files(suite: Suite) -> impl Iterator<Item = Content> {
    let containerd: &[Content] = match suite {
        Suite::Trixie => &CONTAINERD_1_7,
        Suite::Forky => &CONTAINERD_2,
    };
    FILES.into_iter().chain(containerd.iter().copied())
}

/// Units that a test node does without, one a line.
const MASKED: &str = include_str!("rootfs/masked-units");

/// What the files of a package may be left out of the image.
const EXCLUDED: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Images of a suite that the cache keeps: checkouts of different ages take turns.
const KEPT: usize = 2;

/// Sparse; only what is written takes room.
const SIZE: &str = "24G";

/// Installs what making and starting an image needs on this machine.
///
/// # Errors
/// apt can't.
pub fn packages() -> Result<(), Error> {
    packages::need(&["e2fsprogs", "erofs-utils", "mmdebstrap", "openssh-client", "qemu-utils", "zstd"])
}

/// The folder of the suite's image, made if it is not in the cache: `root.img`, `vmlinux`, `key`, `known_hosts`,
/// `packages` (names and versions).
///
/// # Errors
/// A package can't be had, or a tool fails.
pub fn image(suite: Suite, note: &Note) -> Result<PathBuf, Error> {
    let mut key = Key::default();
    key.add("suite", suite.name()).add("packages", PACKAGES.join(" ")).add("size", SIZE);
    key.add("masked", MASKED).add("excluded", EXCLUDED.join(" ")).add("mkfs", MKFS.join(" "));
    for (path, mode, content) in files(suite) {
        key.add(path, content).add("mode", mode.to_string());
    }
    let prefix = format!("{}-", suite.name());
    let image =
        cache::entry("node", &format!("{prefix}{}", key.finish()), |folder| make(suite, folder, note))?;
    // A node that runs has its image open, and its keys are its own.
    cache::keep_newest("node", &prefix, KEPT)?;
    Ok(image)
}

fn make(suite: Suite, folder: &Path, note: &Note) -> Result<(), Error> {
    let root = folder.join("root");
    debootstrap(suite, &root, note)?;
    note.set("packing".into());
    make_keys(folder, &root)?;
    configure(suite, &root)?;
    kernel::extract(&root.join("boot"), &folder.join("vmlinux"))?;
    let dpkg = root.join("var/lib/dpkg");
    let mut list = Command::new("dpkg-query");
    let versions = command::output(list.arg("--admindir").arg(&dpkg).arg("--show"))?;
    write(&folder.join("packages"), 0o644, &versions)?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.env("PATH", sbin_path()).args(MKFS).arg("-d").arg(&root).arg(folder.join("root.img")).arg(SIZE);
    command::run("node-mkfs", &mut mkfs)?;
    fs::remove_dir_all(&root).map_err(Error::file("can't remove", &root))
}

/// A file system that is thrown away needs no journal and no checksums.
const MKFS: [&str; 7] = [
    "-q",
    "-F",
    "-m0",
    "-O",
    "^has_journal,^metadata_csum,uninit_bg",
    "-E",
    "lazy_itable_init=1,root_owner=0:0",
];

fn debootstrap(suite: Suite, root: &Path, note: &Note) -> Result<(), Error> {
    let archive = Archive::of_this_machine()?;
    let mut tool = Command::new("mmdebstrap");
    tool.args(["--mode=root", "--variant=essential"]);
    tool.args(fetch_options()?.iter().map(|option| format!("--aptopt={option}")));
    for path in EXCLUDED {
        tool.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    // The kernel's package wants an initrd; the node needs none.
    tool.arg("--essential-hook=mkdir -p \"$1/etc/initramfs-tools\"");
    tool.arg("--essential-hook=echo update_initramfs=no >\"$1/etc/initramfs-tools/update-initramfs.conf\"");
    tool.arg("--dpkgopt=force-confold");
    tool.arg(format!("--include={}", PACKAGES.join(",")));
    tool.arg(suite.name()).arg(root).arg(archive.source(suite.name())?);
    command::run_watched(&format!("node-image-{}", suite.name()), &mut tool, |line| {
        if let Some(stage) = line.strip_prefix("I: ") {
            note.set(stage.trim_end_matches("...").to_owned());
        }
    })
}

/// A key for us to come in with, and one for the node to be known by.
fn make_keys(folder: &Path, root: &Path) -> Result<(), Error> {
    let ssh = root.join("etc/ssh");
    for entry in fs::read_dir(&ssh).map_err(Error::file("can't read", &ssh))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path()).map_err(Error::file("can't remove", entry.path()))?;
        }
    }
    let host = ssh.join("ssh_host_ed25519_key");
    for (path, comment) in [(folder.join("key"), "nacre"), (host.clone(), "node")] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(&path);
        command::run("node-keygen", &mut keygen)?;
    }
    let public = |path: &Path| {
        let path = path.with_extension("pub");
        fs::read_to_string(&path).map_err(Error::file("can't read", path))
    };
    write(&folder.join("known_hosts"), 0o644, &format!("node {}", public(&host)?))?;
    write(&root.join("root/.ssh/authorized_keys"), 0o600, &public(&folder.join("key"))?)
}

fn configure(suite: Suite, root: &Path) -> Result<(), Error> {
    for (path, mode, content) in files(suite) {
        write(&root.join(path), mode, content)?;
    }
    write(&root.join("etc/hostname"), 0o644, "nacre-node\n")?;
    write(&root.join("etc/fstab"), 0o644, "")?;
    write(&root.join("etc/machine-id"), 0o444, "6e616372656e616372656e616372656e\n")?;
    let units = root.join("etc/systemd/system");
    link("/dev/null", MASKED.lines().map(|unit| units.join(unit)))?;
    link("node.target", [units.join("default.target")])?;
    // Nothing here is generated at boot.
    let generators = root.join("usr/lib/systemd/system-generators");
    let found = fs::read_dir(&generators).map_err(Error::file("can't read", &generators))?;
    let off = root.join("etc/systemd/system-generators");
    link("/dev/null", found.flatten().map(|entry| off.join(entry.file_name())))?;
    let payload = root.join("payload");
    fs::create_dir_all(&payload).map_err(Error::file("can't make the folder", payload))?;
    let archives = root.join("var/cache/apt/archives");
    fs::remove_dir_all(&archives).or_else(missing_is_fine).map_err(Error::file("can't remove", archives))
}

fn link(target: &str, places: impl IntoIterator<Item = PathBuf>) -> Result<(), Error> {
    for place in places {
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(Error::file("can't make the folder", folder))?;
        }
        fs::remove_file(&place).or_else(missing_is_fine).map_err(Error::file("can't remove", &place))?;
        symlink(target, &place).map_err(Error::file("can't make the link", &place))?;
    }
    Ok(())
}

fn missing_is_fine(why: std::io::Error) -> std::io::Result<()> {
    if why.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(why) }
}

fn write(path: &Path, mode: u32, content: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file("can't make the folder", folder))?;
    }
    fs::write(path, content).map_err(Error::file("can't write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::file("can't set the mode of", path))
}

/// Where mkfs is, also for a user whose path lacks it.
fn sbin_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
