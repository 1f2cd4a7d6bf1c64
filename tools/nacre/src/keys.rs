//! `nacre keys`: the keys of the simulated platform.

mod chain;
mod tdx;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nacre_attestation::{KeyError, SoftwareVcek};
use thiserror::Error;

pub use chain::{Chain, ChainError, oid};
pub use tdx::Platform;

/// Where the shim looks for the key.
pub const FOLDER: &str = "/var/lib/nacre/simulated";
/// The private key for SEV-SNP's reports, in the folder. Only root reads it.
pub const KEY: &str = "vcek.key";
/// The folder of TDX's files, in the folder: none of them is meant when certificates for SEV-SNP are looked for.
const TDX: &str = "tdx";
/// The private key for TDX's quotes with its certificates, in that folder. Only root reads it.
const PCK: &str = "pck.key";
/// The bits of AMD's roots.
const ROOT_BITS: usize = if cfg!(test) { chain::TEST_BITS } else { 4096 };

/// Makes the development keys with which the simulated platform signs. For reports of SEV-SNP: vcek.key, and the
/// certificates ark.pem, ask.pem and vcek.pem. For quotes of TDX, in the folder tdx: pck.key with its certificates, root.pem,
/// and collateral.json. The roots' private keys are not kept. Nothing that they sign is confidential
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
    Ok(make_snp(folder)? + &make_tdx(&folder.join(TDX))?)
}

fn stay(folder: &Path) -> String {
    format!("{} has keys already, which stay. Remove the folder for new ones.\n", folder.display())
}

fn make_tdx(folder: &Path) -> Result<String, Error> {
    let at = folder.display();
    if folder.join(PCK).exists() {
        return Ok(stay(folder));
    }
    let Platform { root, key, collateral } = Platform::generate()?;
    write(folder, &[("root.pem", root), ("collateral.json", collateral)], (PCK, key.as_bytes()))?;
    Ok(format!(
        "{at} has new keys for the simulated platform \"tdx\". Check its quotes with\n\
         nacre verify QUOTE --collateral {at}/collateral.json --root {at}/root.pem\n"
    ))
}

fn make_snp(folder: &Path) -> Result<String, Error> {
    let at = folder.display();
    if folder.join(KEY).exists() {
        return Ok(stay(folder));
    }
    let vcek = SoftwareVcek::generate();
    let Chain { ark, ask, vcek: certificate } = Chain::generate(&vcek, ROOT_BITS)?;
    let certificates = [("ark.pem", ark), ("ask.pem", ask), ("vcek.pem", certificate)];
    write(folder, &certificates, (KEY, vcek.to_pem()?.as_bytes()))?;
    Ok(format!(
        "{at} has new keys for the simulated platform. Reports signed with them are not confidential; check them with\n\
         nacre verify REPORT --certs {at} --root {at}/ark.pem\n"
    ))
}

fn write(folder: &Path, files: &[(&str, String)], (name, key): (&str, &[u8])) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(Error::at(folder))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::at(&path))?;
    }
    // Last, so that a key is never without its certificates.
    let path = folder.join(name);
    write_secret(&path, key).map_err(Error::at(&path))
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

    use nacre_attestation::tdx::QuotingEnclave;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("simulated");
        let text = make(&folder).unwrap();
        assert!(text.contains("not confidential"), "{text}");
        let keys = [folder.join(KEY), folder.join(TDX).join(PCK)];
        let read = || keys.each_ref().map(|key| fs::read_to_string(key).unwrap());
        for key in &keys {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        }
        let before = read();
        SoftwareVcek::from_pem(&before[0]).unwrap();
        QuotingEnclave::from_pem(&before[1]).unwrap();
        assert_eq!(make(&folder).unwrap().matches("already").count(), 2);
        assert_eq!(read(), before);
        let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!((count(&folder), count(&folder.join(TDX))), (5, 3));
    }

    #[test]
    fn a_node_that_has_snps_keys_gets_tdxs_and_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY), "a key").unwrap();
        make(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(KEY)).unwrap(), "a key");
        assert!(folder.path().join(TDX).join(PCK).exists());
    }

    #[test]
    fn a_folder_that_can_not_be_is_named() {
        let error = make(Path::new("/proc/nacre/keys")).unwrap_err().to_string();
        assert!(error.starts_with("can't write /proc/nacre/keys"), "{error}");
    }
}
