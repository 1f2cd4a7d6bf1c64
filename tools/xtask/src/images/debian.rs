//! Packages and what they depend on, from the Debian archive that this machine's apt knows.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{Archive, EntryType};

use super::layer::{Entry, Kind, Layer};
use crate::cache;
use crate::command;
use crate::error::Error;

/// Dependencies that only install scripts want: programs in an image run without them.
const NOT_NEEDED: [&str; 8] =
    ["dpkg", "tar", "libacl1", "libmd0", "libselinux1", "libpcre2-8-0", "libbz2-1.0", "debconf"];

/// Folders that an image does without.
const NOT_WANTED: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/bug", "usr/share/locale"];

/// Folders of the root that are links into `usr` on Debian 12 and later.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// The file names of `packages` and of all they depend on, with versions, in order.
///
/// # Errors
/// apt doesn't know a package.
pub fn resolve(packages: &[&str]) -> Result<Vec<String>, Error> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let ask = || {
        // apt leaves out what it has already, so it is shown a folder that stays empty.
        let mut apt = apt(&archives().join("none"))?;
        command::output(apt.args(["--print-uris", "--yes", "install"]).args(packages))
    };
    // A fresh machine has no package lists yet.
    let text = ask().or_else(|_| {
        command::run(
            "apt-update",
            Command::new("apt-get").args(["-o", "DPkg::Lock::Timeout=600", "update"]),
        )?;
        ask()
    })?;
    let mut names: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(file_name)
        .filter(|file| needed(file))
        .collect();
    names.sort();
    Ok(names)
}

/// Fetches the packages; returns their files `names`, which [`resolve`] gave.
///
/// # Errors
/// apt can't fetch them.
pub fn fetch(packages: &[&str], names: &[String]) -> Result<Vec<PathBuf>, Error> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let folder = archives();
    command::run("apt-fetch", apt(&folder)?.args(["--download-only", "--yes", "install"]).args(packages))?;
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// Puts a package's files into a layer, under the merged `/usr` that Debian has.
///
/// # Errors
/// The package can't be read.
pub fn unpack(package: &Path, layer: &mut Layer) -> Result<(), Error> {
    let mut open = Command::new("dpkg-deb");
    let output = open
        .arg("--fsys-tarfile")
        .arg(package)
        .output()
        .map_err(|source| Error::Start { program: "dpkg-deb".to_owned(), source })?;
    if !output.status.success() {
        return Err(Error::Task(format!("{} is not a package that dpkg-deb can read", package.display())));
    }
    copy_entries(&output.stdout, layer).map_err(Error::file("can't read the package", package))
}

/// Adds the links `/bin` to `/usr/bin` and so on.
pub fn merge_usr(layer: &mut Layer) {
    layer.directory("usr");
    for name in MERGED {
        layer.directory(&format!("usr/{name}")).symlink(name, &format!("usr/{name}"));
    }
}

fn copy_entries(tar: &[u8], layer: &mut Layer) -> std::io::Result<()> {
    for entry in Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = merged(&String::from_utf8_lossy(&entry.path_bytes()));
        let unwanted = NOT_WANTED.iter().any(|folder| path.starts_with(folder));
        if path.is_empty() || unwanted || layer.has(&path) {
            continue;
        }
        let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(target.unwrap_or_default()),
            EntryType::Link => Kind::Hardlink(merged(&target.unwrap_or_default())),
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Kind::File(content)
            }
        };
        let mut copy = Entry::new(path, kind).mode(entry.header().mode()?);
        copy.mtime = entry.header().mtime()?;
        layer.add(copy);
    }
    Ok(())
}

/// `./lib/x` as `usr/lib/x`.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) { format!("usr/{path}") } else { path.to_owned() }
}

/// apt on a machine where nothing is installed, so that it names every dependency.
fn apt(archives: &Path) -> Result<Command, Error> {
    let partial = archives.join("partial");
    fs::create_dir_all(&partial).map_err(Error::file("can't make the folder", &partial))?;
    let status = archives.join("status");
    fs::write(&status, "").map_err(Error::file("can't write", &status))?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=600", "-o", "APT::Install-Recommends=0"])
        // The cache folder may be closed to the user that apt fetches as.
        .args(["-o", "APT::Sandbox::User=root"])
        .args(["-o", &format!("Dir::State::status={}", status.display())])
        .args(["-o", &format!("Dir::Cache::archives={}", archives.display())]);
    Ok(apt)
}

fn archives() -> PathBuf {
    cache::root().join("archives")
}

/// The second field of a line of `--print-uris`.
fn file_name(line: &str) -> Option<String> {
    line.split(' ').nth(1).map(str::to_owned)
}

fn needed(file: &str) -> bool {
    !NOT_NEEDED.iter().any(|name| file.starts_with(&format!("{name}_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_folders_move_into_usr() {
        assert_eq!(merged("./lib64/ld-linux-x86-64.so.2"), "usr/lib64/ld-linux-x86-64.so.2");
        assert_eq!(merged("./usr/bin/python3"), "usr/bin/python3");
        assert_eq!(merged("./lib/"), "usr/lib");
        assert_eq!(merged("./"), "");
        assert_eq!(merged("./library"), "library");
    }

    #[test]
    fn file_names_come_from_apts_lines() {
        let line =
            "'http://archive/x/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320";
        assert_eq!(file_name(line).as_deref(), Some("libc6_2.36-9+deb12u14_amd64.deb"));
        assert!(needed("libc6_2.36_amd64.deb"));
        assert!(!needed("tar_1.34_amd64.deb"));
    }
}
