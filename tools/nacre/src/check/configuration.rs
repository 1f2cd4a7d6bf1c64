//! nacre's own configuration.

use nacre_configuration::{DEFAULT_PATH, LoadError, Loaded};

use super::Finding;
use crate::chain;

/// Whether it can be used.
pub fn finding(loaded: &Result<Loaded, LoadError>) -> Finding {
    let name = "configuration";
    match loaded {
        Ok(loaded) if loaded.files.is_empty() => {
            Finding::ok(name, format!("no {DEFAULT_PATH}, all as built in"))
        }
        Ok(loaded) => {
            let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            Finding::ok(name, files.join(", "))
        }
        Err(error) => {
            Finding::missing(name, chain(error), "correct it; `nacre config --reference` shows all keys")
        }
    }
}
