//! The development keys of the simulated TDX platform: certificates in the shape of Intel's, and what Intel says of a
//! platform beside them, the collateral.
//!
//! Intel: "SGX PCK Certificate and Certificate Revocation List Profile Specification", and the formats of the Provisioning
//! Certification Service, API version 4.

mod collateral;
mod extension;

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore};
use p256::pkcs8::EncodePrivateKey;
use x509_cert::Certificate;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::der::asn1::{BitString, UtcTime};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::chain::{ChainError, Extra, YEARS};

const ROOT: &str = "CN=Nacre Simulated SGX Root CA,OU=Development keys - not confidential,O=nacre";
const PROCESSOR: &str =
    "CN=Nacre Simulated SGX PCK Processor CA,OU=Development keys - not confidential,O=nacre";
const PCK: &str = "CN=Nacre Simulated SGX PCK Certificate,OU=Development keys - not confidential,O=nacre";
const TCB: &str = "CN=Nacre Simulated SGX TCB Signing,OU=Development keys - not confidential,O=nacre";

/// What is in the files.
#[derive(Debug, Clone)]
pub struct Platform {
    /// The root, in PEM.
    pub root: String,
    /// The platform's private key, and behind it its certificate and those above, in PEM.
    pub key: String,
    /// What Intel's service would say of the platform, in the JSON of `dcap-qvl`.
    pub collateral: String,
}

/// Somebody who signs certificates or statements.
struct Authority {
    name: Name,
    key: SigningKey,
}

/// From now on, for as long as the certificates of SEV-SNP's chain.
#[derive(Clone, Copy)]
struct Span {
    start: Duration,
    end: Duration,
}

impl Platform {
    /// New keys. Those of the root and of the others who only sign once are gone afterwards.
    ///
    /// # Errors
    /// A certificate or the collateral can't be made.
    pub fn generate() -> Result<Self, ChainError> {
        let span = Span::from_now();
        let root = Authority::new(ROOT)?;
        let processor = Authority::new(PROCESSOR)?;
        let tcb = Authority::new(TCB)?;
        let pck = SecretKey::random(&mut OsRng);

        let root_certificate = root.certify(Profile::Root, &root.name, &root.key, span, &[])?;
        let sub = Profile::SubCA { issuer: root.name.clone(), path_len_constraint: Some(0) };
        let processor_certificate = root.certify(sub, &processor.name, &processor.key, span, &[])?;
        let tcb_certificate = root.certify(root.leaf(), &tcb.name, &tcb.key, span, &[])?;
        let pck_name = Name::from_str(PCK)?;
        let extensions = [extension::of_platform()?];
        let pck_certificate =
            processor.certify(processor.leaf(), &pck_name, &SigningKey::from(&pck), span, &extensions)?;

        let root_pem = pem(&root_certificate)?;
        let above = pem(&processor_certificate)? + &root_pem;
        let key = pck.to_pkcs8_pem(LineEnding::LF).map_err(|_| ChainError::PrivateKey)?;
        Ok(Self {
            key: key.to_string() + &pem(&pck_certificate)? + &above,
            collateral: collateral::text(&collateral::Parts {
                pck_issuers: above,
                tcb_issuers: pem(&tcb_certificate)? + &root_pem,
                root_crl: root.revocations(span)?,
                pck_crl: processor.revocations(span)?,
                signer: &tcb.key,
                span,
            })?,
            root: root_pem,
        })
    }
}

impl Authority {
    fn new(name: &str) -> Result<Self, ChainError> {
        Ok(Self { name: Name::from_str(name)?, key: SigningKey::random(&mut OsRng) })
    }

    fn leaf(&self) -> Profile {
        let issuer = self.name.clone();
        Profile::Leaf { issuer, enable_key_agreement: false, enable_key_encipherment: false }
    }

    fn certify(
        &self,
        profile: Profile,
        subject: &Name,
        key: &SigningKey,
        span: Span,
        extensions: &[Extra],
    ) -> Result<Certificate, ChainError> {
        let serial = SerialNumber::from(OsRng.next_u64() >> 1);
        let key =
            SubjectPublicKeyInfoOwned::from_key(*key.verifying_key()).map_err(|_| ChainError::PublicKey)?;
        let validity = Validity { not_before: time(span.start)?, not_after: time(span.end)? };
        let mut builder =
            CertificateBuilder::new(profile, serial, validity, subject.clone(), key, &self.key)?;
        for extension in extensions {
            builder.add_extension(extension)?;
        }
        Ok(builder.build::<DerSignature>()?)
    }

    /// The list of revoked certificates, none, in DER.
    fn revocations(&self, span: Span) -> Result<Vec<u8>, ChainError> {
        let signature_algorithm =
            self.key.signature_algorithm_identifier().map_err(|_| ChainError::PublicKey)?;
        let tbs_cert_list = TbsCertList {
            version: x509_cert::Version::V2,
            signature: signature_algorithm.clone(),
            issuer: self.name.clone(),
            this_update: time(span.start)?,
            next_update: Some(time(span.end)?),
            revoked_certificates: None,
            crl_extensions: Some(vec![extension::crl_number(&self.name)?]),
        };
        let signature: DerSignature = self.key.sign(&tbs_cert_list.to_der()?);
        let signature = BitString::from_bytes(signature.as_bytes())?;
        Ok(CertificateList { tbs_cert_list, signature_algorithm, signature }.to_der()?)
    }
}

impl Span {
    fn from_now() -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Neither form of time has parts of a second.
        let start = Duration::from_secs(start.as_secs());
        Self { start, end: start + YEARS }
    }
}

fn time(since_epoch: Duration) -> Result<Time, ChainError> {
    Ok(Time::UtcTime(UtcTime::from_unix_duration(since_epoch)?))
}

fn pem(certificate: &Certificate) -> Result<String, ChainError> {
    Ok(certificate.to_pem(LineEnding::LF)?)
}

/// Both numbers of the signature, one behind the other, as in quotes and collateral.
fn sign(key: &SigningKey, bytes: &[u8]) -> Vec<u8> {
    let signature: Signature = key.sign(bytes);
    signature.to_bytes().to_vec()
}
