//! Certificates from files, told apart by what they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;

/// The names of files in a folder that are looked at.
const EXTENSIONS: [&str; 5] = ["pem", "der", "crt", "cer", "cert"];
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// `id-ecPublicKey`.
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// No file of certificates is larger.
const MOST_BYTES: u64 = 1 << 20;

/// What the files hold.
#[derive(Debug, Default)]
pub struct Certificates {
    /// Those that sign themselves.
    pub roots: Vec<Certificate>,
    /// Those between.
    pub intermediate: Vec<Certificate>,
    /// Those of signing keys.
    pub signers: Vec<Certificate>,
}

impl Certificates {
    /// Reads files and folders.
    ///
    /// # Errors
    /// One can't be read, or holds something else, or there is no signing key's certificate.
    pub fn load(paths: &[PathBuf]) -> Result<Self, CertificatesError> {
        let mut certificates = Self::default();
        for path in paths {
            if path.is_dir() {
                for file in files(path)? {
                    certificates.add(&file)?;
                }
            } else {
                certificates.add(path)?;
            }
        }
        if certificates.signers.is_empty() {
            return Err(CertificatesError::NoSigner);
        }
        Ok(certificates)
    }

    /// Reads a file with one certificate.
    ///
    /// # Errors
    /// It can't be read, or holds something else.
    pub fn load_one(path: &Path) -> Result<Certificate, CertificatesError> {
        let mut list = parse(path)?;
        match (list.pop(), list.is_empty()) {
            (Some(certificate), true) => Ok(certificate),
            _ => Err(CertificatesError::NotOne(path.to_owned())),
        }
    }

    fn add(&mut self, path: &Path) -> Result<(), CertificatesError> {
        for certificate in parse(path)? {
            let tbs = &certificate.tbs_certificate;
            let kind = match (tbs.issuer == tbs.subject, tbs.subject_public_key_info.algorithm.oid) {
                (true, _) => &mut self.roots,
                (false, ELLIPTIC_CURVE) => &mut self.signers,
                (false, _) => &mut self.intermediate,
            };
            kind.push(certificate);
        }
        Ok(())
    }
}

/// The certificate's name for people.
pub fn subject(certificate: &Certificate) -> String {
    certificate.tbs_certificate.subject.to_string()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, CertificatesError> {
    let error = |source| CertificatesError::File { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if EXTENSIONS.contains(&extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(path: &Path) -> Result<Vec<Certificate>, CertificatesError> {
    let error = |source| CertificatesError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(error)?.len() > MOST_BYTES {
        return Err(CertificatesError::NotCertificate { path: path.to_owned(), source: None });
    }
    let bytes = fs::read(path).map_err(error)?;
    let list = if bytes.windows(PEM.len()).any(|window| window == PEM) {
        Certificate::load_pem_chain(&bytes)
    } else {
        Certificate::from_der(&bytes).map(|certificate| vec![certificate])
    };
    list.map_err(|source| CertificatesError::NotCertificate { path: path.to_owned(), source: Some(source) })
}

/// Why there are no certificates.
#[derive(Debug, Error)]
pub enum CertificatesError {
    /// A file or folder can't be read.
    #[error("can't read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no certificates in PEM or DER")]
    NotCertificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<x509_cert::der::Error>,
    },
    /// A file holds more than one certificate.
    #[error("{0} does not hold exactly one certificate")]
    NotOne(PathBuf),
    /// Nothing can have signed a report.
    #[error(
        "none of the certificates is a VCEK's or VLEK's; AMD gives it out for the processor's CHIP_ID and TCB \
         at https://kdsintf.amd.com/vcek/v1"
    )]
    NoSigner,
}
