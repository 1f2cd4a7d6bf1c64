//! The guest's own resolver configuration.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::error::{Doing, Failure, Reply};
use crate::teardown::Teardown;

const OURS: &str = "/run/kata-containers/sandbox/resolv.conf";
const GUESTS: &str = "/etc/resolv.conf";

/// More than any resolver reads.
const MAX_LINES: usize = 64;

/// Makes these lines the guest's configuration, if it has one at all.
pub fn set(lines: &[String], teardown: &mut Teardown) -> Reply<()> {
    if lines.is_empty() || !Path::new(GUESTS).is_file() {
        return Ok(());
    }
    if lines.len() > MAX_LINES || lines.iter().any(|line| line.contains('\n')) {
        return Err(Failure::invalid("the resolver's lines"));
    }
    let folder = Path::new(OURS).parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(folder).doing("make the sandbox's folder")?;
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(OURS, text).doing("write the resolver's configuration")?;
    mount(Some(OURS), GUESTS, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing("set the resolver's configuration")?;
    teardown.push_unmount(Path::new(GUESTS));
    Ok(())
}
