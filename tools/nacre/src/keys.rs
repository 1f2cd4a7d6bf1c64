//! `nacre keys`: the keys of the simulated platform.

mod chain;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nacre_attestation::{KeyError, SoftwareVcek};
use thiserror::Error;

pub use chain::{Chain, ChainError, oid};

/// Where the shim looks for the key.
pub const FOLDER: &str = "/var/lib/nacre/simulated";
/// The private key, in the folder. Only root reads it.
pub const KEY: &str = "vcek.key";
/// The bits of AMD's roots.
const ROOT_BITS: usize = if cfg!(test) { chain::TEST_BITS } else { 4096 };

/// Makes the development keys with which the simulated platform signs reports: vcek.key, and the certificates ark.pem,
/// ask.pem and vcek.pem. The private keys of the two roots are not kept. Nothing that they sign is confidential
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    folder: PathBuf,
}

/// The text to print.
///
/// # Errors
/// A file can't be written, or is there without the others.
pub fn run(arguments: &Arguments) -> Result<String, Error> {
    make(&arguments.folder)
}

/// Makes the keys of the node whose root is there, unless it has some.
///
/// # Errors
/// Those of [`run`].
pub fn of_node(root: &Path) -> Result<String, Error> {
    make(&root.join(FOLDER.trim_start_matches('/')))
}

/// Existing keys stay: reports that they signed are checked with their certificates.
fn make(folder: &Path) -> Result<String, Error> {
    let at = folder.display();
    if folder.join(KEY).exists() {
        return Ok(format!("{at} has keys already, which stay. Remove the folder for new ones.\n"));
    }
    let vcek = SoftwareVcek::generate();
    let Chain { ark, ask, vcek: certificate } = Chain::generate(&vcek, ROOT_BITS)?;
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(Error::at(folder))?;
    for (name, text) in [("ark.pem", ark), ("ask.pem", ask), ("vcek.pem", certificate)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::at(&path))?;
    }
    // Last, so that a key is never without its certificates.
    let path = folder.join(KEY);
    write_secret(&path, vcek.to_pem()?.as_bytes()).map_err(Error::at(&path))?;
    Ok(format!(
        "{at} has new keys for the simulated platform. Reports signed with them are not confidential; check them with\n\
         nacre verify REPORT --certs {at} --root {at}/ark.pem\n"
    ))
}

/// Nobody else may read a private key, and none is overwritten. A file that is only half there never has the name.
fn write_secret(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    output.write_all(bytes)?;
    output.sync_all()?;
    fs::rename(&fresh, file)
}

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum Error {
    /// A file can't be written.
    #[error("can't write {path}; run this as root, or choose another --folder")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificates can't be made.
    #[error("can't make the certificates")]
    Chain(#[from] ChainError),
    /// The private key can't be written as text.
    #[error("can't make the private key")]
    Key(#[from] KeyError),
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("simulated");
        let text = make(&folder).unwrap();
        assert!(text.contains("not confidential"), "{text}");
        let mode = fs::metadata(folder.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = fs::read_to_string(folder.join(KEY)).unwrap();
        SoftwareVcek::from_pem(&key).unwrap();
        assert!(make(&folder).unwrap().contains("already"));
        assert_eq!(fs::read_to_string(folder.join(KEY)).unwrap(), key);
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
    }

    #[test]
    fn a_folder_that_can_not_be_is_named() {
        let error = make(Path::new("/proc/nacre/keys")).unwrap_err().to_string();
        assert!(error.starts_with("can't write /proc/nacre/keys"), "{error}");
    }
}
