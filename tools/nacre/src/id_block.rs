//! `nacre id-block`: makes and checks what a guest's owner signs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nacre_launch::{IdBlock, IdBlockError, IdKey, Measurement, Policy, PolicyError, SignedIdBlock};
use thiserror::Error;

use crate::hex;

/// Signs the measurement and the policy that a guest must have, so that no other starts under the owner's key.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Writes an ID block and its authentication
    Sign(Sign),
    /// Checks an ID block and its authentication as the firmware does
    Check(Files),
    /// Writes a new private key, in PEM
    NewKey {
        /// The file, which must not be there yet
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Sign {
    #[command(flatten)]
    files: Files,
    /// The measurement: 96 hexadecimal digits
    #[arg(long, value_parser = measurement)]
    measurement: Measurement,
    /// The guest's policy
    #[arg(long, value_parser = policy, default_value_t)]
    policy: Policy,
    /// The private key of the guest's owner: P-384, in PEM
    #[arg(long)]
    id_key: PathBuf,
    /// The private key of whoever vouches for the owner's key
    #[arg(long)]
    author_key: Option<PathBuf>,
    /// The guest's family: 32 hexadecimal digits
    #[arg(long, value_parser = id, default_value = "00000000000000000000000000000000")]
    family_id: [u8; 16],
    /// The guest's image: 32 hexadecimal digits
    #[arg(long, value_parser = id, default_value = "00000000000000000000000000000000")]
    image_id: [u8; 16],
    /// The guest's security version
    #[arg(long, default_value_t = 0)]
    svn: u32,
}

#[derive(Debug, clap::Args)]
struct Files {
    /// The file of the ID block, 96 bytes
    block: PathBuf,
    /// The file of its authentication, 4096 bytes
    authentication: PathBuf,
}

/// Does what the arguments say and returns the text to print.
///
/// # Errors
/// A file can't be read or written, or holds something else.
pub fn run(arguments: &Arguments) -> Result<String, Error> {
    match &arguments.action {
        Action::Sign(arguments) => sign(arguments),
        Action::Check(files) => {
            let (block, authentication) = (read(&files.block)?, read(&files.authentication)?);
            Ok(describe(&SignedIdBlock::from_bytes(&block, &authentication)?))
        }
        Action::NewKey { file } => {
            let key = IdKey::generate();
            write_secret(file, key.to_pem()?.as_bytes()).map_err(Error::file("can't write", file))?;
            Ok(format!("key digest   {}\n", key.public().digest()))
        }
    }
}

fn sign(arguments: &Sign) -> Result<String, Error> {
    let id_key = key(&arguments.id_key)?;
    let author_key = arguments.author_key.as_deref().map(key).transpose()?;
    let block = IdBlock::new(arguments.measurement, arguments.policy).with_identity(
        arguments.family_id,
        arguments.image_id,
        arguments.svn,
    );
    let signed = block.sign(&id_key, author_key.as_ref());
    let Files { block, authentication } = &arguments.files;
    fs::write(block, signed.block().as_bytes()).map_err(Error::file("can't write", block))?;
    let bytes = signed.authentication_bytes();
    fs::write(authentication, bytes).map_err(Error::file("can't write", authentication))?;
    Ok(describe(&signed))
}

fn describe(signed: &SignedIdBlock) -> String {
    let author = signed.author_key_digest().map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    format!(
        "measurement  {}\npolicy       {:#x}\nID key       {}\nauthor key   {author}\n",
        signed.block().measurement(),
        signed.block().policy(),
        signed.id_key_digest(),
    )
}

fn key(file: &Path) -> Result<IdKey, Error> {
    let text = fs::read_to_string(file).map_err(Error::file("can't read", file))?;
    IdKey::from_pem(&text).map_err(|source| Error::Key { file: file.to_owned(), source })
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(Error::file("can't read", file))
}

/// Nobody else may read a private key, and none is overwritten.
fn write_secret(file: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)
}

pub fn measurement(text: &str) -> Result<Measurement, String> {
    hex::bytes(text).map(Measurement)
}

fn id(text: &str) -> Result<[u8; 16], String> {
    hex::bytes(text)
}

fn policy(text: &str) -> Result<Policy, String> {
    let number =
        text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    let number = number.map_err(|error| error.to_string())?;
    Policy::new(number).map_err(|error: PolicyError| error.to_string())
}

/// Why there is no ID block.
#[derive(Debug, Error)]
pub enum Error {
    /// A file can't be read or written.
    #[error("{what} {file}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        file: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file holds no key.
    #[error("{file} is no key for ID blocks")]
    Key {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: IdBlockError,
    },
    /// The firmware would refuse the block.
    #[error("the firmware would refuse this ID block")]
    Block(#[from] IdBlockError),
}

impl Error {
    fn file(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, file: file.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn nacre(folder: &Path, line: &str) -> Result<String, String> {
        let words = line.split_whitespace().map(|word| word.replace('@', &folder.display().to_string()));
        let words = std::iter::once("id-block".to_owned()).chain(words);
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        run(&program.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn what_it_signs_it_finds_right() {
        let folder = tempfile::tempdir().unwrap();
        let nacre = |line: &str| nacre(folder.path(), line);
        nacre("new-key @/id.pem").unwrap();
        nacre("new-key @/author.pem").unwrap();
        let mode = fs::metadata(folder.path().join("id.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(nacre("new-key @/id.pem").unwrap_err().starts_with("can't write"));

        let measurement = "5a".repeat(48);
        let options = format!(
            "--measurement {measurement} --policy 0x20000 --id-key @/id.pem --author-key @/author.pem"
        );
        let signed = nacre(&format!("sign @/block @/authentication {options}")).unwrap();
        assert!(signed.contains(&measurement) && signed.contains("0x20000"), "{signed}");
        assert_eq!(nacre("check @/block @/authentication"), Ok(signed));

        let mut block = fs::read(folder.path().join("block")).unwrap();
        block[0] ^= 1;
        fs::write(folder.path().join("block"), block).unwrap();
        assert_eq!(
            nacre("check @/block @/authentication"),
            Err("the firmware would refuse this ID block".to_owned())
        );
    }

    #[test]
    fn wrong_numbers_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let sign = |options: &str| nacre(folder.path(), &format!("sign @/a @/b --id-key @/c {options}"));
        let good = format!("--measurement {}", "00".repeat(48));
        assert!(sign("--measurement 12").unwrap_err().contains("not 96 hexadecimal digits"));
        assert!(sign(&format!("{good} --policy 0x10000")).unwrap_err().contains("bit 17"));
        assert!(sign(&format!("{good} --image-id {}", "x".repeat(32))).unwrap_err().contains("not 32"));
        assert!(sign(&good).unwrap_err().contains("can't read"));
    }
}
