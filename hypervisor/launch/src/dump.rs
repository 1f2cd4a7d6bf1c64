//! A plan as files, for tools that are not ours: each range of pages and each CPU state, and `manifest.json`, the
//! list of them in launch order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::parts::{Part, PartKind};
use crate::plan::LaunchPlan;

/// The manifest's name in the folder.
pub const MANIFEST: &str = "manifest.json";

/// An element of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The guest-physical address that is measured.
    pub gpa: u64,
    /// The length in bytes.
    pub len: u64,
    /// How it is launched.
    pub kind: PartKind,
    /// The file with the bytes, beside the manifest. What the plan does not decide is zero in it.
    pub file: String,
}

/// Writes a plan into a folder, which is made if it is not there.
///
/// # Errors
/// The folder or a file can't be written.
pub fn write(plan: &LaunchPlan, folder: &Path) -> Result<(), DumpError> {
    fs::create_dir_all(folder).map_err(DumpError::at(folder))?;
    let manifest: Result<Vec<_>, _> =
        plan.parts().enumerate().map(|(number, part)| place(folder, number, &part)).collect();
    let manifest = manifest?;
    let path = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest).map_err(DumpError::Manifest)?;
    fs::write(&path, text + "\n").map_err(DumpError::at(&path))
}

fn place(folder: &Path, number: usize, part: &Part<'_>) -> Result<Entry, DumpError> {
    let file = format!("{number:02}-{}.bin", part.name);
    let path = folder.join(&file);
    fs::write(&path, &part.content).map_err(DumpError::at(&path))?;
    Ok(Entry { gpa: part.gpa, len: part.len(), kind: part.kind, file })
}

/// Why a plan is not written.
#[derive(Debug, Error)]
pub enum DumpError {
    /// A file or folder can't be written.
    #[error("can't write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest can't be made.
    #[error("can't make the manifest")]
    Manifest(#[source] serde_json::Error),
}

impl DumpError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::plan;

    #[test]
    fn the_manifest_lists_every_page_and_cpu_in_launch_order() {
        let folder = tempfile::tempdir().unwrap();
        write(&plan(2), folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let vmsa = 0xffff_ffff_f000u64;
        let expected = json!([
            { "gpa": 0x1000, "len": 4096, "kind": "normal", "file": "00-hashes.bin" },
            { "gpa": 0x2000, "len": 4096, "kind": "normal", "file": "01-parameters.bin" },
            { "gpa": 0x5000, "len": 4096, "kind": "secrets", "file": "02-secrets.bin" },
            { "gpa": 0x6000, "len": 4096, "kind": "cpuid", "file": "03-cpuid.bin" },
            { "gpa": 0xffff_a000u64, "len": 0x6000, "kind": "normal", "file": "04-stage0.bin" },
            { "gpa": vmsa, "len": 4096, "kind": "vmsa", "file": "05-cpu0.bin" },
            { "gpa": vmsa, "len": 4096, "kind": "vmsa", "file": "06-cpu1.bin" },
        ]);
        assert_eq!(manifest, expected);
        for entry in manifest.as_array().unwrap() {
            let file = folder.path().join(entry["file"].as_str().unwrap());
            assert_eq!(fs::metadata(file).unwrap().len(), entry["len"].as_u64().unwrap());
        }
    }
}
