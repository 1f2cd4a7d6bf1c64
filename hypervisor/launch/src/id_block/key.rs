//! P-384 keys, and how the firmware writes them and their signatures.

use std::fmt;

use p384::SecretKey;
use p384::ecdsa::signature::{Signer, Verifier};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::elliptic_curve::rand_core::OsRng;
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use sha2::{Digest, Sha384};
use zerocopy::{FromZeros, IntoBytes};

use super::IdBlockError;
use crate::abi::{self, EcdsaPublicKey, EcdsaSignature};

/// A private key: of a guest's owner (ID key), or of whoever vouches for owners (author key).
#[derive(Clone)]
pub struct IdKey(SigningKey);

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// SHA-384 of a public key as the firmware writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(pub [u8; 48]);

/// The length of a coordinate and of each half of a signature.
const NUMBER: usize = 48;

impl IdKey {
    /// A new key from the system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::random(&mut OsRng))
    }

    /// A key from PEM text: PKCS#8 ("PRIVATE KEY") or SEC 1 ("EC PRIVATE KEY").
    ///
    /// # Errors
    /// The text is neither, or the key is for another curve.
    pub fn from_pem(text: &str) -> Result<Self, IdBlockError> {
        let key = SecretKey::from_pkcs8_pem(text).or_else(|_| SecretKey::from_sec1_pem(text));
        key.map(|key| Self(key.into())).map_err(|_| IdBlockError::PrivateKey)
    }

    /// The key as PEM text in PKCS#8.
    ///
    /// # Errors
    /// The key can't be written.
    pub fn to_pem(&self) -> Result<String, IdBlockError> {
        let text = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| IdBlockError::PrivateKey)?;
        Ok(text.to_string())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> EcdsaSignature {
        let signature: Signature = self.0.sign(message);
        let (r, s) = signature.split_bytes();
        EcdsaSignature {
            r: little_endian(&r.into()),
            s: little_endian(&s.into()),
            ..EcdsaSignature::new_zeroed()
        }
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("IdKey").field(&self.public()).finish()
    }
}

impl PublicKey {
    /// The key as the firmware writes it.
    #[must_use]
    pub fn to_abi(&self) -> EcdsaPublicKey {
        let point = self.0.to_encoded_point(false);
        let coordinate = |bytes: Option<&p384::FieldBytes>| {
            // A verifying key is never the point at infinity, which alone has no coordinates.
            bytes.map_or([0; 72], |bytes| little_endian(&(*bytes).into()))
        };
        EcdsaPublicKey {
            curve: abi::CURVE_P384,
            qx: coordinate(point.x()),
            qy: coordinate(point.y()),
            ..EcdsaPublicKey::new_zeroed()
        }
    }

    /// The key that the firmware's structure says; `None` if it says none.
    #[must_use]
    pub fn from_abi(key: &EcdsaPublicKey) -> Option<Self> {
        if key.curve != abi::CURVE_P384 || key.reserved.iter().any(|byte| *byte != 0) {
            return None;
        }
        let (x, y) = (big_endian(&key.qx)?, big_endian(&key.qy)?);
        let point = p384::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
        VerifyingKey::from_encoded_point(&point).ok().map(Self)
    }

    /// The key's digest.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.to_abi())
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &EcdsaSignature) -> bool {
        let numbers = big_endian(&signature.r).zip(big_endian(&signature.s));
        let rest_is_zero = signature.reserved.iter().all(|byte| *byte == 0);
        let signature = numbers.filter(|_| rest_is_zero);
        let signature = signature.and_then(|(r, s)| Signature::from_scalars(r, s).ok());
        signature.is_some_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl KeyDigest {
    /// The digest of a public key as the firmware writes it.
    #[must_use]
    pub fn of(key: &EcdsaPublicKey) -> Self {
        Self(Sha384::digest(key.as_bytes()).into())
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The firmware's numbers have 72 bytes, the lowest first.
fn little_endian(number: &[u8; NUMBER]) -> [u8; 72] {
    let mut bytes = [0; 72];
    for (place, byte) in bytes.iter_mut().zip(number.iter().rev()) {
        *place = *byte;
    }
    bytes
}

/// `None` for a number that is too large for the curve.
fn big_endian(bytes: &[u8; 72]) -> Option<[u8; NUMBER]> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
    let mut number = *number;
    number.reverse();
    rest.iter().all(|byte| *byte == 0).then_some(number)
}
