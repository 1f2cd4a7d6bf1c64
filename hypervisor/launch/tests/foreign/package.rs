//! The Python package, in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "sev-snp-measure==0.0.13";

/// A Python that has the package.
pub struct Python {
    packages: PathBuf,
}

impl Python {
    /// The package from the cache, fetched if it is not there yet; otherwise the reason why there is none.
    pub fn find() -> Result<Self, String> {
        let packages = cache()?.join("python").join(PACKAGE);
        if !packages.exists() {
            fetch(&packages)?;
        }
        Ok(Self { packages })
    }

    /// What a script of ours prints.
    pub fn run(&self, script: &str, arguments: &[&Path]) -> Result<String, String> {
        let mut python = Command::new("python3");
        python.arg("-B").arg(super::scripts().join(script)).args(arguments);
        output(python.env("PYTHONPATH", &self.packages))
    }
}

/// Fetches the package and what it needs. A folder that is only half there never has the right name.
fn fetch(packages: &Path) -> Result<(), String> {
    let parent = packages.parent().ok_or("the cache has no folder")?;
    fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    let fresh = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    output(pip.arg(fresh.path()).arg(PACKAGE)).map_err(|text| {
        let reason = text.lines().last().unwrap_or_default().to_owned();
        format!("{PACKAGE} can't be installed with python3 -m pip: {reason}")
    })?;
    match fs::rename(fresh.path(), packages) {
        // Another run was faster.
        Err(_) if packages.exists() => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}

fn cache() -> Result<PathBuf, String> {
    let from = |name: &str, below: &str| std::env::var_os(name).map(|path| PathBuf::from(path).join(below));
    from("NACRE_CACHE", "")
        .or_else(|| from("XDG_CACHE_HOME", "nacre"))
        .or_else(|| from("HOME", ".cache/nacre"))
        .ok_or_else(|| "there is no cache folder: HOME is not set".to_owned())
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("can't start python3: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
