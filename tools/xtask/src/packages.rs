//! Debian packages that a task needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::command;
use crate::debian::{self, Archive};
use crate::error::Error;

/// Installs those of `names` that are missing.
///
/// # Errors
/// apt can't install them, or this is not a Debian machine.
pub fn need(names: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| version(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    update()?;
    command::run("apt-install", apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

/// Installs `name` in at least version `least`, from the release's backports if the release itself has an older one.
/// The machine's apt configuration stays as it is.
///
/// # Errors
/// apt can't install it, or the backports don't have it either.
pub fn need_version(name: &str, least: &str) -> Result<(), Error> {
    if version(name).is_some_and(|version| reaches(&version, least)) {
        return Ok(());
    }
    update()?;
    let candidate = command::output(Command::new("apt-cache").args(["policy", name]))?;
    if candidate
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|it| reaches(it, least))
    {
        return command::run(
            "apt-install",
            apt().args(["install", "--yes", "--no-install-recommends", name]),
        );
    }
    let backports = Suite::backports()?;
    let mut install = backports.apt();
    install.args(["install", "--yes", "--no-install-recommends", "--target-release", &backports.name, name]);
    command::run("apt-install-backports", &mut install)?;
    let suite = backports.name;
    match version(name) {
        Some(version) if reaches(&version, least) => Ok(()),
        other => Err(Error::Task(format!(
            "{name} is {}, {least} or newer is needed and {suite} does not have it",
            other.as_deref().unwrap_or("not installed")
        ))),
    }
}

/// Fetches a package of a release of Debian's into `folder` without installing it, and returns its file.
///
/// # Errors
/// apt can't.
fn fetch_from(release: &str, name: &str, folder: &Path) -> Result<PathBuf, Error> {
    let suite = Suite::fetch(release, &[release])?;
    let mut download = suite.apt();
    // apt would give the download to a user of its own, who can't write here.
    download.args(["-o", "APT::Sandbox::User=root", "download", name]);
    command::run("apt-download", download.current_dir(folder))?;
    let entries = fs::read_dir(folder).map_err(Error::file("can't read", folder))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Error::Task(format!("apt fetched no package {name}")))
}

/// Fetches a package of another release and unpacks its files into `folder`/root.
///
/// # Errors
/// apt or dpkg can't.
pub fn unpack_from(release: &str, name: &str, folder: &Path) -> Result<(), Error> {
    let package = fetch_from(release, name, folder)?;
    let mut unpack = Command::new("dpkg-deb");
    command::run("unpack-package", unpack.arg("--extract").arg(&package).arg(folder.join("root")))?;
    fs::remove_file(&package).map_err(Error::file("can't remove", &package))
}

/// Fetches the source of a package of another release into `folder`, with Debian's patches applied, and returns its folder.
///
/// # Errors
/// apt can't.
pub fn fetch_source(name: &str, release: &str, folder: &Path) -> Result<PathBuf, Error> {
    let line = Archive::of_this_machine()?.source_code(release)?;
    let suite = Suite::fetch_lines(&format!("{release}-source"), &[line])?;
    let mut source = suite.apt();
    source.args(["-o", "APT::Sandbox::User=root", "source", "--only-source", name]);
    command::run("apt-source", source.current_dir(folder))?;
    let entries = fs::read_dir(folder).map_err(Error::file("can't read", folder))?;
    let mut folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.next().ok_or_else(|| Error::Task(format!("apt unpacked no source of {name}")))
}

/// A suite of Debian's, with lists of its own: the machine's apt does not know it.
struct Suite {
    name: String,
    source: PathBuf,
    lists: PathBuf,
}

impl Suite {
    /// The backports for this machine's release.
    fn backports() -> Result<Self, Error> {
        let main = debian::codename()?;
        let backports = format!("{main}-backports");
        Self::fetch(&backports, &[&main, &backports])
    }

    /// The suite `name`, whose packages need those of `all`.
    fn fetch(name: &str, all: &[&str]) -> Result<Self, Error> {
        let archive = Archive::of_this_machine()?;
        let lines: Vec<String> = all.iter().map(|suite| archive.source(suite)).collect::<Result<_, _>>()?;
        Self::fetch_lines(name, &lines)
    }

    fn fetch_lines(name: &str, lines: &[String]) -> Result<Self, Error> {
        let folder = cache::root().join("apt");
        let lists = folder.join("lists").join(name);
        fs::create_dir_all(&lists).map_err(Error::file("can't make the folder", &lists))?;
        let source = folder.join(format!("{name}.list"));
        fs::write(&source, lines.join("\n") + "\n").map_err(Error::file("can't write", &source))?;
        let suite = Self { name: name.to_owned(), source, lists };
        command::run("apt-update-suite", suite.apt().arg("update"))?;
        Ok(suite)
    }

    fn apt(&self) -> Command {
        let mut apt = apt();
        apt.arg("-o").arg(format!("Dir::Etc::SourceList={}", self.source.display()));
        apt.args(["-o", "Dir::Etc::SourceParts=/dev/null"]);
        apt.arg("-o").arg(format!("Dir::State::Lists={}", self.lists.display()));
        apt
    }
}

/// Fetches apt's lists.
///
/// # Errors
/// apt can't.
pub fn update() -> Result<(), Error> {
    command::run("apt-update", apt().arg("update"))
}

/// The installed version of a package.
pub fn version(name: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status} ${Version}", name]);
    let output = query.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.strip_prefix("installed ").map(str::to_owned)
}

/// Whether a version is this one or a later one.
pub fn reaches(version: &str, least: &str) -> bool {
    let compare = Command::new("dpkg").args(["--compare-versions", version, "ge", least]).status();
    compare.is_ok_and(|status| status.success())
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=600"]);
    apt
}
