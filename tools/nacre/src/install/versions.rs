//! The folders of versions, and the links to the one that counts.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::InstallError;

/// Below the node's root.
const HOME: &str = "opt/nacre";
const CURRENT: &str = "current";
/// Where the files are in a release, in a version's folder, and as containerd and our defaults look for them.
const FILES: [&str; 6] = [
    "usr/local/bin/containerd-shim-nacre-v2",
    "usr/local/bin/nacre-vmm",
    "usr/local/bin/nacre",
    "usr/share/nacre/vmlinux",
    "usr/share/nacre/initrd.img",
    "usr/share/nacre/stage0.bin",
];

/// Adds the version below `from` to a node, makes it the one that counts, and removes those that nobody uses.
///
/// # Errors
/// A file is missing or can't be written.
pub fn install(from: &Path, root: &Path) -> Result<String, InstallError> {
    let version = version(from)?;
    let home = root.join(HOME);
    let folder = home.join(&version);
    if !folder.exists() {
        let new = home.join(format!("{version}.new"));
        let _ = fs::remove_dir_all(&new);
        FILES.iter().try_for_each(|file| copy(&from.join(file), &new.join(file)))?;
        fs::rename(&new, &folder).map_err(InstallError::file("can't make", &folder))?;
    }
    let before = fs::read_link(home.join(CURRENT)).ok();
    link(Path::new(&version), &home.join(CURRENT))?;
    for file in FILES {
        link(&Path::new("/").join(HOME).join(CURRENT).join(file), &root.join(file))?;
    }
    let mut kept = in_use(root, Path::new("/proc"));
    kept.push(version.clone());
    kept.extend(before.map(|before| before.to_string_lossy().into_owned()));
    remove_others(&home, &kept);
    Ok(version)
}

/// The version with the hash of its files: two builds of one version are not the same.
fn version(from: &Path) -> Result<String, InstallError> {
    let mut hash = Sha256::new();
    for file in FILES {
        let path = from.join(file);
        let mut content = File::open(&path).map_err(InstallError::file("can't read", &path))?;
        hash.update(file);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = content.read(&mut buffer).map_err(InstallError::file("can't read", &path))?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{hash}", env!("CARGO_PKG_VERSION")))
}

fn copy(from: &Path, to: &Path) -> Result<(), InstallError> {
    let copy = || -> io::Result<()> {
        fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        fs::copy(from, to)?;
        // On the disk before the link says so.
        let mut file = File::options().append(true).open(to)?;
        file.flush()?;
        file.sync_all()
    };
    copy().map_err(InstallError::file("can't copy to", to))
}

/// Makes or replaces a link in one step. A file of an installation by hand is replaced, too.
fn link(target: &Path, link: &Path) -> Result<(), InstallError> {
    if fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let mut new = link.as_os_str().to_owned();
    new.push(".nacre-new");
    let new = PathBuf::from(new);
    let make = || -> io::Result<()> {
        fs::create_dir_all(link.parent().unwrap_or(Path::new("/")))?;
        let _ = fs::remove_file(&new);
        symlink(target, &new)?;
        fs::rename(&new, link)
    };
    make().map_err(InstallError::file("can't make the link", link))
}

/// The versions whose programs run, by the links of processes to what they execute.
pub fn in_use(root: &Path, proc: &Path) -> Vec<String> {
    let versions: Vec<String> = names(&root.join(HOME));
    let running: Vec<PathBuf> =
        names(proc).iter().filter_map(|pid| fs::read_link(proc.join(pid).join("exe")).ok()).collect();
    let daemons = ["containerd-shim-nacre-v2", "nacre-vmm"];
    let runs = |version: &String| {
        let folder = format!("/{HOME}/{version}/");
        running.iter().any(|exe| {
            let exe = exe.to_string_lossy();
            exe.contains(&folder) && daemons.iter().any(|name| exe.contains(name))
        })
    };
    versions.into_iter().filter(runs).collect()
}

fn remove_others(home: &Path, kept: &[String]) {
    for name in names(home).iter().filter(|name| *name != CURRENT && !kept.contains(name)) {
        // One that stays takes space and does no harm.
        let _ = fs::remove_dir_all(home.join(name));
    }
}

/// Takes all versions and links away. A file that is no link of ours stays.
///
/// # Errors
/// Something can't be removed.
pub fn remove(root: &Path) -> Result<(), InstallError> {
    let home = root.join(HOME);
    for file in FILES {
        let path = root.join(file);
        if fs::read_link(&path).is_ok_and(|target| target.starts_with(Path::new("/").join(HOME))) {
            fs::remove_file(&path).map_err(InstallError::file("can't remove", &path))?;
        }
    }
    let _ = fs::remove_dir(root.join("usr/share/nacre"));
    match fs::remove_dir_all(&home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::file("can't remove", &home)(error))
        }
        _ => Ok(()),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
