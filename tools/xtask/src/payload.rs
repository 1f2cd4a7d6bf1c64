//! What a test node has of ours: a read-only disk with programs, guest files, configuration, images and tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Key};
use crate::command;
use crate::error::Error;
use crate::progress::Progress;
use crate::{guest, images, packages, programs, stage0};

/// The steps that [`build`] shows.
pub const STEPS: [&str; 4] = ["programs", "guest image", "container images", "payload of the test node"];

/// Programs that the payload holds.
const PROGRAMS: [&str; 6] = [
    "containerd-shim-nacre-v2",
    "nacre-vmm",
    "nacre",
    "nacre-machine-tests",
    "nacre-stage0-harness",
    "nacre-tests",
];

/// What `nacre keys` makes.
const KEYS: [(&str, u32); 7] = [
    ("ark.pem", 0o644),
    ("ask.pem", 0o644),
    ("vcek.pem", 0o644),
    ("vcek.key", 0o600),
    ("tdx/root.pem", 0o644),
    ("tdx/collateral.json", 0o644),
    ("tdx/pck.key", 0o600),
];

/// Payloads that the cache keeps.
const KEPT: usize = 3;

/// A file of the payload.
struct Part {
    /// Its path in the payload.
    name: String,
    mode: u32,
    content: Vec<u8>,
}

/// Builds what the payload holds and packs it, an EROFS image. Shows [`STEPS`].
///
/// # Errors
/// Those of the builds.
pub fn build(progress: &mut Progress) -> Result<PathBuf, Error> {
    // Shows steps of its own when there is something to build.
    let kernel = guest::kernel()?;
    let programs = progress.step(programs::build)?;
    let (initrd, stage0) = progress.step(|| Ok((guest::image()?, stage0::image()?)))?;
    let images = progress.step(images::all)?;
    progress.step(|| {
        let mut parts = vec![
            Part::read("share/vmlinux", 0o644, &kernel)?,
            Part::read("share/initrd.img", 0o644, &initrd)?,
            Part::read("share/stage0.bin", 0o644, &stage0)?,
            Part::read("etc/nacre.toml", 0o644, &cache::checkout().join("configuration/nacre.toml"))?,
            Part { name: "install".into(), mode: 0o755, content: include_bytes!("payload/install").to_vec() },
        ];
        for name in PROGRAMS {
            parts.push(Part::read(&format!("bin/{name}"), 0o755, &programs.join(name))?);
        }
        let keys = simulated_keys(&programs.join("nacre"))?;
        for (name, mode) in KEYS {
            parts.push(Part::read(&format!("share/simulated/{name}"), mode, &keys.join(name))?);
        }
        for image in &images {
            let name = image.file_name().unwrap_or_default().to_string_lossy();
            parts.push(Part::read(&format!("images/{name}"), 0o644, image)?);
        }
        pack(&parts)
    })
}

impl Part {
    fn read(name: &str, mode: u32, from: &Path) -> Result<Self, Error> {
        let content = fs::read(from).map_err(Error::file("can't read", from))?;
        Ok(Self { name: name.to_owned(), mode, content })
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(&self.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file("can't make the folder", parent))?;
        }
        fs::write(&path, &self.content).map_err(Error::file("can't write", &path))?;
        let mode = fs::Permissions::from_mode(self.mode);
        fs::set_permissions(&path, mode).map_err(Error::file("can't set the mode of", &path))
    }
}

/// The keys of the simulated platform. They are made here and once: an emulated processor would look for their primes for
/// minutes.
fn simulated_keys(nacre: &Path) -> Result<PathBuf, Error> {
    let entry = cache::entry("simulated-keys", "2", |folder| {
        let mut keys = Command::new(nacre);
        command::run("keys", keys.args(["keys", "--folder"]).arg(folder.join("keys")))
    })?;
    Ok(entry.join("keys"))
}

fn pack(parts: &[Part]) -> Result<PathBuf, Error> {
    packages::need(&["erofs-utils"])?;
    let mut key = Key::default();
    for part in parts {
        key.add(&part.name, &part.content).add("mode", part.mode.to_string());
    }
    let entry = cache::entry("payload", &key.finish(), |folder| {
        let tree = folder.join("tree");
        parts.iter().try_for_each(|part| part.write(&tree))?;
        let mut mkfs = Command::new("mkfs.erofs");
        mkfs.args(["-T0", "--all-root"]).arg(folder.join("payload.erofs")).arg(&tree);
        command::run("payload", &mut mkfs)?;
        fs::remove_dir_all(&tree).map_err(Error::file("can't remove", &tree))
    })?;
    // Each build of ours leaves one. A node that runs keeps its own open.
    cache::keep_newest("payload", "", KEPT)?;
    Ok(entry.join("payload.erofs"))
}
