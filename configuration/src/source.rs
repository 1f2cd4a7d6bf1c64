//! One file: its keys with their lines, checked for itself, so that a message names the line that is wrong.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{LoadError, Place};
use crate::nearest;
use crate::sections::{Configuration, SECTIONS};

/// A file that was read and is valid for itself.
#[derive(Debug)]
pub(crate) struct Source {
    /// `section.key` and where it is set.
    pub origins: Vec<(String, Place)>,
    /// The values.
    pub table: toml::Table,
}

impl Source {
    /// Reads and checks the file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        check_owner(path, &file.metadata().map_err(failed)?)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, LoadError> {
        let tree = DeTable::parse(text).map_err(|error| invalid(path, text, None, &error))?;
        let origins = known_keys(path, text, tree.get_ref())?;
        toml::from_str::<Configuration>(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let key = origins.iter().find(|(_, place)| Some(place.line) == line).map(|(key, _)| key.clone());
            invalid(path, text, key, &error)
        })?;
        let table = toml::from_str(text).map_err(|error| invalid(path, text, None, &error))?;
        Ok(Self { origins, table })
    }
}

/// SECURITY: a user who can write the file could have root run any program as the VMM.
fn check_owner(path: &Path, metadata: &std::fs::Metadata) -> Result<(), LoadError> {
    let own = std::fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(0);
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if mode & 0o022 != 0 && metadata.is_file() || owner != 0 && owner != own {
        return Err(LoadError::Writable { path: path.to_owned(), mode, owner });
    }
    Ok(())
}

/// Lists all keys with their places; a key that is not known is an error.
fn known_keys(path: &Path, text: &str, tree: &DeTable<'_>) -> Result<Vec<(String, Place)>, LoadError> {
    let mut origins = Vec::new();
    for (section, value) in tree.iter() {
        let name: &str = section.get_ref();
        let Some(known) = SECTIONS.iter().find(|known| known.name == name) else {
            let nearest = nearest::section(SECTIONS, name);
            return Err(LoadError::UnknownKey {
                place: place(path, text, section),
                key: name.into(),
                nearest,
            });
        };
        // Another type than a table is left to the typed reading, which knows how to say it.
        let DeValue::Table(keys) = value.get_ref() else { continue };
        for key in keys.keys() {
            let full = format!("{name}.{}", key.get_ref());
            let place = place(path, text, key);
            if !known.keys.iter().any(|known| known.name == key.get_ref().as_ref()) {
                let nearest = nearest::key(SECTIONS, name, key.get_ref());
                return Err(LoadError::UnknownKey { place, key: full, nearest });
            }
            origins.push((full, place));
        }
    }
    Ok(origins)
}

fn place<T>(path: &Path, text: &str, spanned: &Spanned<T>) -> Place {
    Place { path: path.to_owned(), line: line_of(text, spanned.span().start) }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn invalid(path: &Path, text: &str, key: Option<String>, error: &toml::de::Error) -> LoadError {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    let message = error.message().replace('\n', ", ");
    LoadError::Invalid { place: Place { path: PathBuf::from(path), line }, key, message }
}

#[cfg(test)]
mod tests;
