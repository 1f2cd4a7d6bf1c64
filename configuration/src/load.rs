//! Finding the files and laying them over each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{LoadError, Place};
use crate::sections::Configuration;
use crate::source::Source;

/// The file that is read when [`PATH_VARIABLE`] is not set.
pub const DEFAULT_PATH: &str = "/etc/nacre/nacre.toml";

/// The environment variable that names another file than [`DEFAULT_PATH`].
pub const PATH_VARIABLE: &str = "NACRE_CONFIG";

/// The folder of drop-ins, beside the file.
const DROP_INS: &str = "conf.d";

/// A valid configuration and where its values come from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub configuration: Configuration,
    /// For each key that a file sets (`section.key`), the place that counts; all others have their defaults.
    pub origins: BTreeMap<String, Place>,
    /// The files that were read, the first one first.
    pub files: Vec<PathBuf>,
}

impl Configuration {
    /// Reads the file that [`PATH_VARIABLE`] names, or else [`DEFAULT_PATH`], with the drop-ins beside it.
    ///
    /// # Errors
    /// Whatever is wrong with a file, with file and line. A file that is named but missing is an error, too; a
    /// missing default file is not.
    pub fn load() -> Result<Self, LoadError> {
        Loaded::load().map(|loaded| loaded.configuration)
    }

    /// Reads the file `path`, which may be missing, with the drop-ins in `conf.d` beside it.
    ///
    /// # Errors
    /// Whatever is wrong with a file, with file and line.
    pub fn load_from(path: &Path) -> Result<Self, LoadError> {
        Loaded::load_from(path).map(|loaded| loaded.configuration)
    }
}

impl Loaded {
    /// Like [`Configuration::load`], with the origin of each value.
    ///
    /// # Errors
    /// As there.
    pub fn load() -> Result<Self, LoadError> {
        let Some(path) = std::env::var_os(PATH_VARIABLE).map(PathBuf::from) else {
            return Self::load_from(Path::new(DEFAULT_PATH));
        };
        match std::fs::metadata(&path) {
            Ok(_) => Self::load_from(&path),
            Err(source) => Err(LoadError::Read { path, source }),
        }
    }

    /// Like [`Configuration::load_from`], with the origin of each value.
    ///
    /// # Errors
    /// As there.
    pub fn load_from(path: &Path) -> Result<Self, LoadError> {
        let mut paths = vec![path.to_owned()];
        paths.extend(drop_ins(&path.with_file_name(DROP_INS))?);

        let (mut table, mut origins, mut files) = (toml::Table::new(), BTreeMap::new(), Vec::new());
        for path in paths {
            let Some(source) = Source::read(&path)? else { continue };
            lay_over(&mut table, source.table);
            origins.extend(source.origins);
            files.push(path);
        }
        let configuration = Configuration::deserialize_merged(table, &files)?;
        configuration.check_pairs(&origins, path)?;
        Ok(Self { configuration, origins, files })
    }
}

/// The drop-ins in the order of their names. Names that start with a dot, and anything but `.toml`, do not count.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Replaces single keys of `below` by those of `above`.
fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

impl Configuration {
    /// Each file is valid for itself, so their sum is; an error here has no line of its own.
    fn deserialize_merged(table: toml::Table, files: &[PathBuf]) -> Result<Self, LoadError> {
        table.try_into().map_err(|error: toml::de::Error| LoadError::Invalid {
            place: Place { path: files.last().cloned().unwrap_or_default(), line: 1 },
            key: None,
            message: error.message().to_owned(),
        })
    }

    /// Checks what no single value shows.
    fn check_pairs(&self, origins: &BTreeMap<String, Place>, path: &Path) -> Result<(), LoadError> {
        let (vm, binds) = (&self.vm, &self.binds);
        let pairs = [
            ("vm.default_vcpus", vm.default_vcpus.get(), "vm.max_vcpus", vm.max_vcpus.get()),
            (
                "vm.default_memory_mib",
                vm.default_memory_mib.get(),
                "vm.max_memory_mib",
                vm.max_memory_mib.get(),
            ),
            (
                "binds.max_file_kib",
                binds.max_file_kib.get(),
                "binds.max_folder_kib",
                binds.max_folder_kib.get(),
            ),
        ];
        for (smaller, small, larger, large) in pairs {
            if small > large {
                let place = [larger, smaller].iter().find_map(|key| origins.get(*key)).cloned();
                let place = place.unwrap_or(Place { path: path.to_owned(), line: 1 });
                return Err(LoadError::Above { place, smaller, small, larger, large });
            }
        }
        Ok(())
    }
}
