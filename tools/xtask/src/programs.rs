//! Our programs as they are shipped: optimised and linked statically, to run on any node and in a guest that has
//! no libraries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::command;
use crate::error::Error;
use crate::packages;

/// What our programs are compiled for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The packages with static programs. They are built together, whichever is wanted: cargo chooses the features of a
/// shared dependency by what it builds at once, and would compile many of them again for each other selection.
const PACKAGES: [&str; 6] =
    ["containerd-shim-nacre-v2", "nacre", "nacre-agent", "nacre-machine-tests", "nacre-tests", "nacre-vmm"];

/// Builds our programs and returns the folder that holds them.
///
/// # Errors
/// A Debian package is missing and can't be installed, or the build fails.
pub fn build() -> Result<PathBuf, Error> {
    // The agent's container library links libseccomp.
    packages::need(&["gcc", "libc6-dev", "libseccomp-dev"])?;
    let mut build = cargo();
    build.args(["build", "--release", "--target", TARGET]);
    build.args(PACKAGES.iter().flat_map(|name| ["--package", name]));
    let flags = [vec!["-Ctarget-feature=+crt-static".into()], path_flags()].concat();
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    build.env("LIBSECCOMP_LINK_TYPE", "static").env("LIBSECCOMP_LIB_PATH", "/usr/lib/x86_64-linux-gnu");
    command::run("build-programs", &mut build)?;
    Ok(target_folder()?.join(TARGET).join("release"))
}

/// Flags for the compiler. Where the checkout and cargo's folder are must not be seen in the programs: the guest
/// image is measured, and the same source must give the same bytes in any folder.
pub fn path_flags() -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    vec![remap(&cache::checkout(), "/nacre"), remap(&cargo, "/cargo")]
}

/// cargo's folder for what it builds.
///
/// # Errors
/// cargo does not say.
pub fn target_folder() -> Result<PathBuf, Error> {
    let text = command::output(cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Task(format!("cargo's description of the workspace is not JSON: {error}")))?;
    let folder = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    folder
        .map(PathBuf::from)
        .ok_or_else(|| Error::Task("cargo does not say where its target folder is".into()))
}

/// cargo, in the checkout.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(cache::checkout());
    cargo
}
