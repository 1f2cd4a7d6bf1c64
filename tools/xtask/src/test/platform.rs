//! `cargo xtask test snp`: the suite of containers on this machine itself, each in a virtual machine with SEV-SNP.
//!
//! It stops containerd and fills the node as the suite does in a test node: for a host that runs nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::summary::{Outcome, Summary};
use crate::cache;
use crate::error::Error;
use crate::progress::Progress;
use crate::{images, programs};

const RUNTIME: &str = "io.containerd.nacre.v2";
/// Read before the drop-ins of single tests, whose technology is another one.
const DROP_IN: &str = "/etc/nacre/conf.d/90-nacre-test-platform.toml";

/// Arguments of `cargo xtask test snp`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only the tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
}

/// A line of `nacre check --json`.
#[derive(Debug, Deserialize)]
struct Finding {
    name: String,
    state: String,
    needed: bool,
    found: String,
    #[serde(default)]
    to_do: String,
}

/// The configuration, as long as this lives.
struct DropIn;

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = fs::remove_file(DROP_IN);
    }
}

/// Runs the suite, which prints its own lines.
///
/// # Errors
/// The machine lacks something: all of it, with what to do. Nothing was changed then.
pub fn tests(summary: &mut Summary, arguments: &Arguments) -> Result<(), Error> {
    let mut progress = Progress::new(&["programs", "what this host has", "container images"]);
    let programs = progress.step(programs::build)?;
    progress.step(|| refuse(&missing(&check(&programs.join("nacre"))?)))?;
    let images = progress.step(collect)?;

    let _drop_in = configure()?;
    let mut suite = Command::new(programs.join("nacre-tests"));
    suite.args(["run", "--runtime", RUNTIME, "--images"]).arg(images).args(&arguments.filter);
    let status =
        suite.status().map_err(|source| Error::Start { program: "nacre-tests".to_owned(), source })?;
    let outcome = match status.success() {
        true => Outcome::Passed,
        false => Outcome::Failed(format!("nacre-tests ended with {status}, see above")),
    };
    summary.add("the suite of containers, each with SEV-SNP", outcome);
    Ok(())
}

fn check(nacre: &Path) -> Result<Vec<Finding>, Error> {
    // Its status says whether something is missing, which is not an error yet.
    let output = Command::new(nacre).args(["check", "--json"]).output();
    let output = output.map_err(|source| Error::Start { program: nacre.display().to_string(), source })?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Task(format!("what nacre check prints can't be read: {error}")))
}

/// What any pod needs, and what one with SEV-SNP does.
fn missing(findings: &[Finding]) -> Vec<String> {
    let snp = |finding: &Finding| finding.name == "AMD SEV-SNP" || finding.name.starts_with("SNP ");
    let missing = findings.iter().filter(|finding| finding.state == "missing");
    let missing = missing.filter(|finding| finding.needed || snp(finding));
    missing
        .map(|Finding { name, found, to_do, .. }| format!("{name}: {found}; {}", to_do.replace('\n', " ")))
        .collect()
}

fn refuse(missing: &[String]) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Task(format!("this host can't start pods with SEV-SNP:\n- {}", missing.join("\n- "))))
}

/// The images in one folder.
fn collect() -> Result<PathBuf, Error> {
    let folder = cache::checkout().join("target/images");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    for image in images::all()? {
        let place = folder.join(image.file_name().unwrap_or_default());
        fs::copy(&image, &place).map_err(Error::file("can't copy to", &place))?;
    }
    Ok(folder)
}

fn configure() -> Result<DropIn, Error> {
    let path = Path::new(DROP_IN);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(Error::file("can't make the folder", folder))?;
    fs::write(path, "[vm]\ntee = \"snp\"\n").map_err(Error::file("can't write", path))?;
    Ok(DropIn)
}

#[cfg(test)]
mod tests {
    use super::{Finding, missing, refuse};

    fn finding(name: &str, state: &str, needed: bool) -> Finding {
        let (found, to_do) = ("not there".to_owned(), "buy\none".to_owned());
        Finding { name: name.to_owned(), state: state.to_owned(), needed, found, to_do }
    }

    #[test]
    fn a_host_that_lacks_something_is_refused_with_all_of_it() {
        let findings = [
            finding("KVM", "missing", true),
            finding("shim", "ok", true),
            finding("AMD SEV-SNP", "missing", false),
            finding("SNP ASIDs", "missing", false),
            finding("Intel TDX", "missing", false),
        ];
        let error = refuse(&missing(&findings)).unwrap_err().to_string();
        for part in ["KVM: not there; buy one", "AMD SEV-SNP", "SNP ASIDs"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("TDX") && !error.contains("shim"), "{error}");
    }

    #[test]
    fn a_host_that_has_all_is_not() {
        let findings = [finding("KVM", "ok", true), finding("Intel TDX", "missing", false)];
        assert!(refuse(&missing(&findings)).is_ok());
    }
}
