//! Debian packages that a task needs.

use std::process::Command;

use crate::command;
use crate::error::Error;

/// Installs those of `names` that are missing.
///
/// # Errors
/// apt can't install them, or this is not a Debian machine.
pub fn need(names: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    command::run("apt-update", apt().arg("update"))?;
    command::run("apt-install", apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

fn installed(name: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", name]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=600"]);
    apt
}
