//! The software security processor's key, and what it signs.

use std::fmt;

use p384::SecretKey;
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use p384::elliptic_curve::rand_core::{OsRng, RngCore};
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zerocopy::{FromZeros, IntoBytes};

use crate::layout::{self, FirmwareVersion, REPORT_LEN, Report, SIGNED_LEN, TcbVersion};

/// How a processor that is none begins its `CHIP_ID`, in ASCII.
pub const CHIP_ID_PREFIX: &[u8; 32] = b"NACRE-SIMULATED-NOT-CONFIDENTIAL";

/// The name of a processor.
pub type ChipId = [u8; 64];

/// The report's version: the first with the processor's family.
const VERSION: u32 = 3;
/// EPYC Milan, so that those who read reports know the layout of the versions in it.
const MILAN: (u8, u8, u8) = (0x19, 0x01, 0x01);
/// `REPORT_ID_MA` of a guest without a migration agent.
const NO_MIGRATION_AGENT: [u8; 32] = [0xff; 32];
const AUTHOR_KEY: u32 = 1;
/// The length of a coordinate and of each half of a signature.
const NUMBER: usize = 48;

/// The versions that reports and the key's certificate show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tcb {
    pub boot_loader: u8,
    pub tee: u8,
    pub snp: u8,
    pub microcode: u8,
}

impl Tcb {
    /// The software's own.
    pub const SOFTWARE: Self = Self { boot_loader: 1, tee: 1, snp: 1, microcode: 1 };

    const fn version(self) -> TcbVersion {
        let Self { boot_loader, tee, snp, microcode } = self;
        TcbVersion { boot_loader, tee, reserved: [0; 4], snp, microcode }
    }
}

/// The key in place of a processor's.
#[derive(Clone)]
pub struct SoftwareVcek(SigningKey);

/// What is reported about a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedGuest {
    /// The launch's measurement.
    pub measurement: [u8; 48],
    /// The guest's policy.
    pub policy: u64,
    /// What the host said about the guest.
    pub host_data: [u8; 32],
    /// What its owner signed, if anything.
    pub id_block: Option<IdBlockFields>,
    /// Differs from guest to guest: see [`ReportedGuest::new_report_id`].
    pub report_id: [u8; 32],
}

/// What a report takes from an ID block and its authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdBlockFields {
    /// The guest's family.
    pub family_id: [u8; 16],
    /// The guest's image.
    pub image_id: [u8; 16],
    /// The guest's security version.
    pub guest_svn: u32,
    /// SHA-384 of the ID key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author key, if there is one.
    pub author_key_digest: Option<[u8; 48]>,
}

impl Default for ReportedGuest {
    fn default() -> Self {
        Self { measurement: [0; 48], policy: 0, host_data: [0; 32], id_block: None, report_id: [0; 32] }
    }
}

impl ReportedGuest {
    /// A random number for [`ReportedGuest::report_id`].
    #[must_use]
    pub fn new_report_id() -> [u8; 32] {
        let mut id = [0; 32];
        OsRng.fill_bytes(&mut id);
        id
    }
}

impl SoftwareVcek {
    /// A new key from the system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::random(&mut OsRng))
    }

    /// A key from PEM text in PKCS#8.
    ///
    /// # Errors
    /// The text is none, or the key is for another curve.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SecretKey::from_pkcs8_pem(text).map(|key| Self(key.into())).map_err(|_| KeyError)
    }

    /// The key as PEM text in PKCS#8.
    ///
    /// # Errors
    /// The key can't be written.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_pkcs8_pem(LineEnding::LF).map(|text| text.to_string()).map_err(|_| KeyError)
    }

    /// The public key for its certificate: `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// The key can't be written.
    pub fn public_key_der(&self) -> Result<Vec<u8>, KeyError> {
        let document = self.0.verifying_key().to_public_key_der().map_err(|_| KeyError)?;
        Ok(document.as_bytes().to_vec())
    }

    /// The name of the processor that the key stands for: [`CHIP_ID_PREFIX`] and the SHA-256 of the public key.
    #[must_use]
    pub fn chip_id(&self) -> ChipId {
        let digest: [u8; 32] =
            Sha256::digest(self.0.verifying_key().to_encoded_point(false).as_bytes()).into();
        let mut id = [0; 64];
        let (prefix, rest) = id.split_at_mut(32);
        prefix.copy_from_slice(CHIP_ID_PREFIX);
        rest.copy_from_slice(&digest);
        id
    }

    /// A report about `guest` with its own 64 bytes.
    #[must_use]
    pub fn sign_report(&self, guest: &ReportedGuest, report_data: &[u8; 64]) -> [u8; REPORT_LEN] {
        let mut report = self.unsigned(guest, report_data);
        let mut bytes = [0; REPORT_LEN];
        bytes.copy_from_slice(report.as_bytes());
        let (signed, _) = bytes.split_at(SIGNED_LEN);
        let signature: Signature = self.0.sign(signed);
        let (r, s) = signature.split_bytes();
        report.signature.r = little_endian(&r.into());
        report.signature.s = little_endian(&s.into());
        bytes.copy_from_slice(report.as_bytes());
        bytes
    }

    fn unsigned(&self, guest: &ReportedGuest, report_data: &[u8; 64]) -> Report {
        let tcb = Tcb::SOFTWARE.version();
        let firmware = FirmwareVersion { build: 1, minor: 55, major: 1, reserved: 0 };
        let mut report = Report {
            version: VERSION,
            policy: guest.policy,
            signature_algorithm: layout::ALGORITHM_ECDSA_P384_SHA384,
            report_data: *report_data,
            measurement: guest.measurement,
            host_data: guest.host_data,
            report_id: guest.report_id,
            report_id_ma: NO_MIGRATION_AGENT,
            cpuid_family: MILAN.0,
            cpuid_model: MILAN.1,
            cpuid_stepping: MILAN.2,
            chip_id: self.chip_id(),
            current_tcb: tcb,
            reported_tcb: tcb,
            committed_tcb: tcb,
            launch_tcb: tcb,
            current_version: firmware,
            committed_version: firmware,
            ..Report::new_zeroed()
        };
        if let Some(id_block) = guest.id_block {
            report.family_id = id_block.family_id;
            report.image_id = id_block.image_id;
            report.guest_svn = id_block.guest_svn;
            report.id_key_digest = id_block.id_key_digest;
            report.author_key_digest = id_block.author_key_digest.unwrap_or([0; 48]);
            report.key_info = if id_block.author_key_digest.is_some() { AUTHOR_KEY } else { 0 };
        }
        report
    }
}

/// Whether a report with this `CHIP_ID` says that it is not a processor's.
#[must_use]
pub fn is_simulated(chip_id: &ChipId) -> bool {
    chip_id.starts_with(CHIP_ID_PREFIX)
}

fn little_endian(big_endian: &[u8; NUMBER]) -> [u8; 72] {
    let mut number = [0; 72];
    for (place, byte) in number.iter_mut().zip(big_endian.iter().rev()) {
        *place = *byte;
    }
    number
}

impl fmt::Debug for SoftwareVcek {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SoftwareVcek").finish_non_exhaustive()
    }
}

/// A key can't be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no private key for P-384 in PEM (PKCS#8); `nacre keys` makes one")]
pub struct KeyError;

#[cfg(test)]
mod tests {
    use p384::ecdsa::VerifyingKey;
    use p384::ecdsa::signature::Verifier;
    use p384::pkcs8::DecodePublicKey;
    use sev::firmware::guest::AttestationReport;
    use sev::parser::ByteParser;

    use super::*;

    fn guest() -> ReportedGuest {
        let id_block = IdBlockFields {
            family_id: [3; 16],
            image_id: [4; 16],
            guest_svn: 5,
            id_key_digest: [6; 48],
            author_key_digest: Some([7; 48]),
        };
        ReportedGuest {
            measurement: [1; 48],
            policy: 0x3_0000,
            host_data: [2; 32],
            id_block: Some(id_block),
            report_id: [8; 32],
        }
    }

    #[test]
    fn a_foreign_reader_finds_every_field() {
        let vcek = SoftwareVcek::generate();
        let bytes = vcek.sign_report(&guest(), &[9; 64]);
        let report = AttestationReport::from_bytes(&bytes).unwrap();
        assert_eq!((report.version, report.guest_svn, report.vmpl, report.sig_algo), (3, 5, 0, 1));
        assert_eq!((u64::from(report.policy), u32::from(report.key_info)), (0x3_0000, 1));
        assert_eq!((report.measurement, report.host_data), ([1; 48], [2; 32]));
        assert_eq!((report.family_id, report.image_id), ([3; 16], [4; 16]));
        assert_eq!((report.id_key_digest, report.author_key_digest), ([6; 48], [7; 48]));
        assert_eq!((report.report_id, report.report_data), ([8; 32], [9; 64]));
        assert_eq!(report.chip_id, vcek.chip_id());
        let tcb = report.reported_tcb;
        assert_eq!((tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode), (None, 1, 1, 1, 1));
        assert!(is_simulated(&report.chip_id));
    }

    #[test]
    fn the_signature_is_over_the_first_part_and_by_the_key() {
        let vcek = SoftwareVcek::generate();
        let bytes = vcek.sign_report(&guest(), &[9; 64]);
        let key = VerifyingKey::from_public_key_der(&vcek.public_key_der().unwrap()).unwrap();
        let report = AttestationReport::from_bytes(&bytes).unwrap();
        let signature = Signature::try_from(&report.signature).unwrap();
        let (signed, _) = bytes.split_at(SIGNED_LEN);
        key.verify(signed, &signature).unwrap();
        let mut other = signed.to_vec();
        other[0x90] ^= 1;
        key.verify(&other, &signature).unwrap_err();
    }

    #[test]
    fn a_key_is_the_same_after_writing_and_reading() {
        let vcek = SoftwareVcek::generate();
        let read = SoftwareVcek::from_pem(&vcek.to_pem().unwrap()).unwrap();
        assert_eq!(read.chip_id(), vcek.chip_id());
        assert_ne!(SoftwareVcek::generate().chip_id(), vcek.chip_id());
        assert_eq!(SoftwareVcek::from_pem("-----BEGIN PRIVATE KEY-----").unwrap_err(), KeyError);
    }
}
