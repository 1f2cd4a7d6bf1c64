//! This machine's Debian: where its packages come from, asked of apt itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::Error;
use crate::packages;

/// What apt is asked to print for each list of packages that it is configured with.
const FORMAT: &str = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(LABEL)";

/// Where the keyring of Debian's archive is, by Debian release.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// A Debian archive: the one that this machine is installed from.
#[derive(Debug, PartialEq, Eq)]
pub struct Archive {
    uri: String,
}

impl Archive {
    /// The first archive in apt's configuration that is Debian's main one.
    ///
    /// # Errors
    /// apt fails, or is not configured with Debian's archive.
    pub fn of_this_machine() -> Result<Self, Error> {
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", FORMAT, "Created-By: Packages"]);
        if let Some(archive) = Self::parse(&command::output(&mut targets)?) {
            return Ok(archive);
        }
        // apt says nothing of what it has never fetched.
        packages::update()?;
        Self::parse(&command::output(&mut targets)?).ok_or_else(|| {
            Error::Task("apt is not configured with Debian's archive: no source of origin Debian".into())
        })
    }

    fn parse(targets: &str) -> Option<Self> {
        targets.lines().find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            [uri, _, "main", "Debian", "Debian"] => Some(Self { uri: uri.to_owned() }),
            _ => None,
        })
    }

    /// A line of `sources.list` for a suite of this archive, checked against Debian's keyring.
    ///
    /// # Errors
    /// The keyring is missing.
    pub fn source(&self, suite: &str) -> Result<String, Error> {
        self.line("deb", suite)
    }

    /// The same for what the suite's packages are built from.
    ///
    /// # Errors
    /// Those of [`Self::source`].
    pub fn source_code(&self, suite: &str) -> Result<String, Error> {
        self.line("deb-src", suite)
    }

    fn line(&self, kind: &str, suite: &str) -> Result<String, Error> {
        packages::need(&["debian-archive-keyring"])?;
        let keyring = KEYRINGS
            .iter()
            .find(|keyring| Path::new(keyring).exists())
            .ok_or_else(|| Error::Task(format!("none of {} exists", KEYRINGS.join(", "))))?;
        Ok(format!("{kind} [signed-by={keyring}] {} {suite} main", self.uri))
    }
}

/// What this machine's apt is told about fetching that another apt has to be told, too: `name "value"`.
const FETCHING: [&str; 4] =
    ["Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy"];

/// Options for an apt that fetches for another root, so that it fetches as this machine's does.
///
/// # Errors
/// apt can't say.
pub fn fetch_options() -> Result<Vec<String>, Error> {
    let mut options = vec!["Acquire::Languages \"none\"".to_owned()];
    for name in FETCHING {
        let value =
            command::output(Command::new("apt-config").args(["dump", "--format=%v", "--no-empty", name]))?;
        if !value.is_empty() {
            options.push(format!("{name} \"{value}\""));
        }
    }
    Ok(options)
}

/// The code name of this machine's release: `bookworm`.
///
/// # Errors
/// This is not a Debian machine.
pub fn codename() -> Result<String, Error> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(Error::file("can't read", path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| Error::Task("/etc/os-release names no Debian release".into()))
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn takes_debians_main_archive_and_no_other() {
        let targets = "http://one.invalid/cloud/|sdk|main|cloud|cloud\n\
                       http://two.invalid/debian/|bookworm-backports|main|Debian Backports|Debian Backports\n\
                       http://three.invalid/debian-security/|bookworm-security|main|Debian|Debian-Security\n\
                       http://four.invalid/debian/|bookworm|contrib|Debian|Debian\n\
                       http://five.invalid/debian/|bookworm|main|Debian|Debian\n";
        let archive = Archive::parse(targets).unwrap();
        assert_eq!(archive.uri, "http://five.invalid/debian/");
    }

    #[test]
    fn finds_nothing_in_an_empty_list() {
        assert_eq!(Archive::parse(""), None);
    }
}
