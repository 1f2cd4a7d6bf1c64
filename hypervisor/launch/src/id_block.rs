//! ID blocks: what a guest's owner signs so that the firmware starts nothing else under the owner's key.
//!
//! The firmware refuses a launch whose digest or policy is not the block's. A report of the guest names the keys
//! by their digests.

mod key;

use thiserror::Error;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::abi;
use crate::digest::Measurement;
use crate::policy::Policy;

pub use key::{IdKey, KeyDigest, PublicKey};

/// The only version of an ID block.
const VERSION: u32 = 1;

/// An ID block that is not signed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdBlock(abi::IdBlock);

/// What authenticates an ID block, as bytes for the firmware.
pub type IdAuthentication = abi::IdAuthentication;

/// An ID block with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIdBlock {
    block: IdBlock,
    authentication: Box<abi::IdAuthentication>,
}

impl IdBlock {
    /// A block for one measurement and policy.
    #[must_use]
    pub fn new(measurement: Measurement, policy: Policy) -> Self {
        Self(abi::IdBlock {
            ld: measurement.0,
            version: VERSION,
            policy: policy.bits(),
            ..abi::IdBlock::new_zeroed()
        })
    }

    /// The same block with numbers of the owner's, which appear in the guest's reports.
    #[must_use]
    pub const fn with_identity(mut self, family_id: [u8; 16], image_id: [u8; 16], guest_svn: u32) -> Self {
        self.0.family_id = family_id;
        self.0.image_id = image_id;
        self.0.guest_svn = guest_svn;
        self
    }

    /// Signs the block with the ID key and, if there is one, the ID key with the author key.
    ///
    /// The same keys and block give the same signatures (RFC 6979).
    #[must_use]
    pub fn sign(&self, id_key: &IdKey, author_key: Option<&IdKey>) -> SignedIdBlock {
        let public = id_key.public().to_abi();
        let mut authentication = abi::IdAuthentication {
            id_key_algorithm: abi::ALGORITHM_ECDSA_P384_SHA384,
            id_block_signature: id_key.sign(self.as_bytes()),
            id_key: public,
            ..abi::IdAuthentication::new_zeroed()
        };
        if let Some(author) = author_key {
            authentication.author_key_algorithm = abi::ALGORITHM_ECDSA_P384_SHA384;
            authentication.id_key_signature = author.sign(public.as_bytes());
            authentication.author_key = author.public().to_abi();
        }
        SignedIdBlock { block: *self, authentication: Box::new(authentication) }
    }

    /// The owner's numbers: family, image, security version.
    #[must_use]
    pub const fn identity(&self) -> ([u8; 16], [u8; 16], u32) {
        (self.0.family_id, self.0.image_id, self.0.guest_svn)
    }

    /// The measurement that a launch must have.
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        Measurement(self.0.ld)
    }

    /// The policy that a launch must have.
    #[must_use]
    pub const fn policy(&self) -> u64 {
        self.0.policy
    }

    /// The 96 bytes that the firmware gets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl SignedIdBlock {
    /// A block and its authentication from the bytes of two files, checked.
    ///
    /// # Errors
    /// The bytes are none, or the firmware would refuse them.
    pub fn from_bytes(block: &[u8], authentication: &[u8]) -> Result<Self, IdBlockError> {
        let block = abi::IdBlock::read_from_bytes(block).map_err(|_| IdBlockError::BlockSize(block.len()))?;
        let authentication = abi::IdAuthentication::read_from_bytes(authentication)
            .map_err(|_| IdBlockError::AuthenticationSize(authentication.len()))?;
        let signed = Self { block: IdBlock(block), authentication: Box::new(authentication) };
        signed.verify()?;
        Ok(signed)
    }

    /// Checks version, policy, algorithms, keys and signatures, as the firmware does.
    ///
    /// # Errors
    /// What the firmware would refuse.
    pub fn verify(&self) -> Result<(), IdBlockError> {
        if self.block.0.version != VERSION {
            return Err(IdBlockError::Version(self.block.0.version));
        }
        let information = &self.authentication;
        let mut unused =
            information.reserved_008.iter().chain(&information.reserved_644).chain(&information.reserved_c84);
        if unused.any(|byte| *byte != 0) {
            return Err(IdBlockError::Reserved);
        }
        if information.id_key_algorithm != abi::ALGORITHM_ECDSA_P384_SHA384 {
            return Err(IdBlockError::Algorithm(information.id_key_algorithm));
        }
        let id_key = PublicKey::from_abi(&information.id_key).ok_or(IdBlockError::IdKey)?;
        if !id_key.verifies(self.block.as_bytes(), &information.id_block_signature) {
            return Err(IdBlockError::BlockSignature);
        }
        if !self.has_author() {
            return Ok(());
        }
        if information.author_key_algorithm != abi::ALGORITHM_ECDSA_P384_SHA384 {
            return Err(IdBlockError::Algorithm(information.author_key_algorithm));
        }
        let author = PublicKey::from_abi(&information.author_key).ok_or(IdBlockError::AuthorKey)?;
        if !author.verifies(information.id_key.as_bytes(), &information.id_key_signature) {
            return Err(IdBlockError::KeySignature);
        }
        Ok(())
    }

    /// The block.
    #[must_use]
    pub const fn block(&self) -> &IdBlock {
        &self.block
    }

    /// The 4096 bytes of authentication that the firmware gets.
    #[must_use]
    pub fn authentication_bytes(&self) -> &[u8] {
        self.authentication.as_bytes()
    }

    /// Whether there is an author key: `AUTH_KEY_EN` of the launch.
    #[must_use]
    pub fn has_author(&self) -> bool {
        let information = &self.authentication;
        information.author_key_algorithm != 0 || information.author_key != abi::EcdsaPublicKey::new_zeroed()
    }

    /// `ID_KEY_DIGEST` of the guest's reports.
    #[must_use]
    pub fn id_key_digest(&self) -> KeyDigest {
        KeyDigest::of(&self.authentication.id_key)
    }

    /// `AUTHOR_KEY_DIGEST` of the guest's reports, if there is an author key.
    #[must_use]
    pub fn author_key_digest(&self) -> Option<KeyDigest> {
        self.has_author().then(|| KeyDigest::of(&self.authentication.author_key))
    }
}

/// Why an ID block is none that the firmware would take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdBlockError {
    /// The block has another size.
    #[error("an ID block has 96 bytes, not {0}")]
    BlockSize(usize),
    /// The authentication has another size.
    #[error("ID authentication has 4096 bytes, not {0}")]
    AuthenticationSize(usize),
    /// The block is of another version.
    #[error("version {0} of an ID block, only 1 is known")]
    Version(u32),
    /// Bytes without a meaning are not zero.
    #[error("unused bytes of ID authentication are not zero")]
    Reserved,
    /// A key is for another algorithm.
    #[error("algorithm {0} of a key, only 1 (ECDSA P-384 with SHA-384) is known")]
    Algorithm(u32),
    /// The ID key is no point on the curve.
    #[error("the ID key is no P-384 key")]
    IdKey,
    /// The author key is no point on the curve.
    #[error("the author key is no P-384 key")]
    AuthorKey,
    /// The block is not signed by the ID key.
    #[error("the ID key did not sign this ID block")]
    BlockSignature,
    /// The ID key is not signed by the author key.
    #[error("the author key did not sign this ID key")]
    KeySignature,
    /// A file is no private key.
    #[error("no private P-384 key in PEM (PKCS#8 or SEC 1)")]
    PrivateKey,
}

#[cfg(test)]
mod tests;
