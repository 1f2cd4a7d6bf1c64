//! The development key's certificates, in the shape of AMD's: ARK, ASK, VCEK.
//!
//! "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification", 57230, chapter 3.

use std::str::FromStr;
use std::time::Duration;

use nacre_attestation::{KeyError, SoftwareVcek, Tcb};
use p384::elliptic_curve::rand_core::{OsRng, RngCore};
use rsa::pss::{Signature, SigningKey};
use rsa::signature::Keypair;
use sha2::Sha384;
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::der::asn1::{Ia5String, OctetString};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, EncodePem, pem::LineEnding};
use x509_cert::ext::{AsExtension, Extension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{EncodePublicKey, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;

/// AMD's object identifiers for the parts of a VCEK certificate.
pub mod oid {
    use super::ObjectIdentifier;

    pub const STRUCTURE_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
    pub const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
    pub const BOOT_LOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
    pub const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
    pub const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
    pub const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
    pub const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
    pub const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
}

/// For tests, whose keys need not be strong.
pub const TEST_BITS: usize = 2048;

/// How long certificates are valid.
pub const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const ARK: &str = "CN=ARK-Nacre-Simulated,OU=Development keys - not confidential,O=nacre";
const ASK: &str = "CN=SEV-Nacre-Simulated,OU=Development keys - not confidential,O=nacre";
const VCEK: &str = "CN=SEV-VCEK,OU=Development keys - not confidential,O=nacre";

/// Three certificates, in PEM.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The root, which signs itself.
    pub ark: String,
    /// Signed by the root.
    pub ask: String,
    /// The signing key's own, signed by the ASK.
    pub vcek: String,
}

impl Chain {
    /// New roots of this many bits, and a certificate for the key. The roots' private keys are gone afterwards.
    ///
    /// # Errors
    /// A certificate can't be made.
    pub fn generate(key: &SoftwareVcek, bits: usize) -> Result<Self, ChainError> {
        let ark = SigningKey::<Sha384>::random(&mut OsRng, bits)?;
        let ask = SigningKey::<Sha384>::random(&mut OsRng, bits)?;
        let (ark_name, ask_name) = (name(ARK)?, name(ASK)?);

        let ark_key = public(&ark)?;
        let root = build(Profile::Root, ark_name.clone(), ark_key, &ark, &[])?;
        let profile = Profile::SubCA { issuer: ark_name, path_len_constraint: Some(0) };
        let sub = build(profile, ask_name.clone(), public(&ask)?, &ark, &[])?;
        let profile =
            Profile::Leaf { issuer: ask_name, enable_key_agreement: false, enable_key_encipherment: false };
        let vcek_key = SubjectPublicKeyInfoOwned::from_der(&key.public_key_der()?)?;
        let leaf = build(profile, name(VCEK)?, vcek_key, &ask, &extensions(key)?)?;

        let pem = |certificate: &Certificate| certificate.to_pem(LineEnding::LF);
        Ok(Self { ark: pem(&root)?, ask: pem(&sub)?, vcek: pem(&leaf)? })
    }
}

fn name(text: &str) -> Result<Name, ChainError> {
    Ok(Name::from_str(text)?)
}

fn public(key: &SigningKey<Sha384>) -> Result<SubjectPublicKeyInfoOwned, ChainError> {
    let document = key.verifying_key().to_public_key_der().map_err(|_| ChainError::PublicKey)?;
    Ok(SubjectPublicKeyInfoOwned::from_der(document.as_bytes())?)
}

fn build(
    profile: Profile,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    signer: &SigningKey<Sha384>,
    extensions: &[Extra],
) -> Result<Certificate, ChainError> {
    let serial = SerialNumber::from(OsRng.next_u64() >> 1);
    let validity = Validity::from_now(YEARS)?;
    let mut builder = CertificateBuilder::new(profile, serial, validity, subject, key, signer)?;
    for extension in extensions {
        builder.add_extension(extension)?;
    }
    Ok(builder.build_with_rng::<Signature>(&mut OsRng)?)
}

/// What AMD says in a VCEK certificate about the processor.
fn extensions(key: &SoftwareVcek) -> Result<Vec<Extra>, ChainError> {
    let Tcb { boot_loader, tee, snp, microcode } = Tcb::SOFTWARE;
    let numbers = [
        (oid::STRUCTURE_VERSION, 0),
        (oid::BOOT_LOADER, boot_loader),
        (oid::TEE, tee),
        (oid::SNP, snp),
        (oid::MICROCODE, microcode),
    ];
    let mut list = Vec::new();
    for (oid, number) in numbers {
        list.push(Extra { oid, value: number.to_der()? });
    }
    list.push(Extra { oid: oid::PRODUCT_NAME, value: Ia5String::new("Nacre-Simulated")?.to_der()? });
    // AMD puts the bytes there as they are, not as a DER value.
    list.push(Extra { oid: oid::HARDWARE_ID, value: key.chip_id().to_vec() });
    Ok(list)
}

/// An extension whose value is not always DER.
pub struct Extra {
    /// Which.
    pub oid: ObjectIdentifier,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl x509_cert::der::oid::AssociatedOid for Extra {
    // Not used: `to_extension` takes the one of the value.
    const OID: ObjectIdentifier = oid::STRUCTURE_VERSION;
}

impl Encode for Extra {
    fn encoded_len(&self) -> x509_cert::der::Result<x509_cert::der::Length> {
        x509_cert::der::Length::try_from(self.value.len())
    }

    fn encode(&self, writer: &mut impl x509_cert::der::Writer) -> x509_cert::der::Result<()> {
        writer.write(&self.value)
    }
}

impl AsExtension for Extra {
    fn critical(&self, _subject: &Name, _extensions: &[Extension]) -> bool {
        false
    }

    fn to_extension(
        &self,
        _subject: &Name,
        _extensions: &[Extension],
    ) -> Result<Extension, x509_cert::der::Error> {
        let extn_value = OctetString::new(self.value.clone())?;
        Ok(Extension { extn_id: self.oid, critical: false, extn_value })
    }
}

/// Why there are no certificates.
#[derive(Debug, Error)]
pub enum ChainError {
    /// A root key can't be made.
    #[error("can't make a root's key")]
    Rsa(#[from] rsa::Error),
    /// A certificate can't be built.
    #[error("can't build a certificate")]
    Build(#[from] x509_cert::builder::Error),
    /// A certificate or a part of it can't be written.
    #[error("can't write a certificate")]
    Der(#[from] x509_cert::der::Error),
    /// An object identifier can't be made.
    #[error("can't make an object identifier")]
    Oid(#[from] x509_cert::der::oid::Error),
    /// A public key can't be written.
    #[error("can't write a public key")]
    PublicKey,
    /// A private key can't be written.
    #[error("can't write a private key")]
    PrivateKey,
    /// The collateral can't be written.
    #[error("can't write the collateral")]
    Json(#[source] serde_json::Error),
    /// The signing key can't be written.
    #[error("can't write the signing key")]
    Key(#[from] KeyError),
}
