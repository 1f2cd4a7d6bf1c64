//! Hosts that are folders, for tests of what is said about them.

use std::fs;

use tempfile::TempDir;

use super::Finding;
use super::report::State;

/// A folder with these files, but for `other` ones; without content a file is not there.
pub fn host(good: &[(&str, &str)], other: &[(&str, Option<&str>)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in good {
        let other = other.iter().find(|(other, _)| other == name);
        let Some(text) = other.map_or(Some(*text), |(_, text)| *text) else { continue };
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// The names of what is missing, each of which says what to do.
pub fn missing(findings: Vec<Finding>) -> Vec<&'static str> {
    let missing = findings.into_iter().filter(|finding| finding.state == State::Missing);
    missing
        .inspect(|finding| assert!(finding.to_do.is_some(), "{finding:?}"))
        .map(|finding| finding.name)
        .collect()
}
