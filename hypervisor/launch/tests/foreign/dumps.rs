//! Plans of the real guest, as `nacre measure --json --dump` writes them: `cargo xtask test` makes them and says in
//! `NACRE_PLANS` where they are.

#![allow(clippy::unwrap_used, dead_code)] // Not every calculator uses all.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One plan.
pub struct Dump {
    /// The folder with manifest and pages.
    pub folder: PathBuf,
    /// Of a guest with this many vCPUs.
    pub vcpus: u64,
    /// What `nacre measure` says.
    pub measurement: String,
}

/// An element of a manifest, with its bytes.
pub struct Entry {
    pub gpa: u64,
    pub kind: String,
    pub bytes: Vec<u8>,
}

/// The plans for this technology, or why there are none.
pub fn of(tee: &str) -> Result<Vec<Dump>, String> {
    let folder =
        env::var_os("NACRE_PLANS").ok_or("no plans of the real guest; `cargo xtask test` makes them")?;
    let folder = Path::new(&folder).join(tee);
    let rows = json(&folder.join("measurements.json"));
    let dump = |row: &Value| Dump {
        folder: folder.join(format!("vcpus-{}", row["vcpus"])),
        vcpus: row["vcpus"].as_u64().unwrap(),
        measurement: row["measurement"].as_str().unwrap().to_owned(),
    };
    Ok(rows.as_array().unwrap().iter().map(dump).collect())
}

impl Dump {
    /// All of it, in launch order.
    pub fn entries(&self) -> Vec<Entry> {
        let manifest = json(&self.folder.join("manifest.json"));
        let entry = |entry: &Value| Entry {
            gpa: entry["gpa"].as_u64().unwrap(),
            kind: entry["kind"].as_str().unwrap().to_owned(),
            bytes: fs::read(self.folder.join(entry["file"].as_str().unwrap())).unwrap(),
        };
        manifest.as_array().unwrap().iter().map(entry).collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
