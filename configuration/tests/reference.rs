//! The reference file says what the types say.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use nacre_configuration::{Configuration, reference};

/// Set to anything, `UPDATE_REFERENCE` makes the test write the file instead of comparing it.
#[test]
fn the_reference_file_is_the_one_made_from_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("nacre.toml");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, reference::text()).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(
        file == reference::text(),
        "configuration/nacre.toml is out of date: run `UPDATE_REFERENCE=1 cargo test -p nacre-configuration`"
    );
}

#[test]
fn the_reference_file_as_it_is_means_the_defaults() {
    assert_eq!(loaded(&reference::text()), Configuration::default());
}

#[test]
fn every_default_in_the_reference_file_is_a_valid_value() {
    let keys = reference::text()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => key,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(keys.contains("\nkernel = "), "{keys}");
    assert_eq!(loaded(&keys), Configuration::default());
}

fn loaded(text: &str) -> Configuration {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nacre.toml");
    std::fs::write(&path, text).unwrap();
    Configuration::load_from(&path).unwrap()
}
