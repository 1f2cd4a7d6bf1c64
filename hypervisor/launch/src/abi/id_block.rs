//! The ID block and what authenticates it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `ID_KEY_ALGO` and `AUTH_KEY_ALGO` of the only algorithm there is (SEV-SNP firmware ABI, chapter 10, table
/// "Encoding for the SIGNATURE_ALGO field").
pub const ALGORITHM_ECDSA_P384_SHA384: u32 = 1;
/// The curve's number in a public key (same chapter, table "Curve encodings").
pub const CURVE_P384: u32 = 2;

/// `ID_BLOCK` (SEV-SNP firmware ABI, section 8.18.2, table "Structure of the ID Block").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdBlock {
    /// The launch digest that the launch must have.
    pub ld: [u8; 48],
    /// Chosen by the guest's owner.
    pub family_id: [u8; 16],
    /// Chosen by the guest's owner.
    pub image_id: [u8; 16],
    /// The version of this structure: 1.
    pub version: u32,
    /// The guest's security version number, chosen by its owner.
    pub guest_svn: u32,
    /// The policy that the launch must have.
    pub policy: u64,
}

/// `ID_AUTH_INFO` (SEV-SNP firmware ABI, section 8.18.3, table "Structure of the ID Authentication Information").
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdAuthentication {
    /// The algorithm of the ID key.
    pub id_key_algorithm: u32,
    /// The algorithm of the author key.
    pub author_key_algorithm: u32,
    pub(crate) reserved_008: [u8; 56],
    /// The ID key's signature of the ID block.
    pub id_block_signature: EcdsaSignature,
    /// The ID key.
    pub id_key: EcdsaPublicKey,
    pub(crate) reserved_644: [u8; 60],
    /// The author key's signature of the ID key.
    pub id_key_signature: EcdsaSignature,
    /// The author key.
    pub author_key: EcdsaPublicKey,
    pub(crate) reserved_c84: [u8; 892],
}

/// An ECDSA signature (SEV-SNP firmware ABI, chapter 10, table "Format for an ECDSA P-384 with SHA-384 Signature").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EcdsaSignature {
    /// The number r, little endian.
    pub r: [u8; 72],
    /// The number s, little endian.
    pub s: [u8; 72],
    pub(crate) reserved: [u8; 368],
}

/// An ECDSA public key (SEV-SNP firmware ABI, chapter 10, table "Format for an ECDSA P-384 Public Key").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EcdsaPublicKey {
    /// The curve.
    pub curve: u32,
    /// The point's first coordinate, little endian.
    pub qx: [u8; 72],
    /// The point's second coordinate, little endian.
    pub qy: [u8; 72],
    pub(crate) reserved: [u8; 880],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<IdBlock>() == 96);
    assert!(offset_of!(IdBlock, family_id) == 48);
    assert!(offset_of!(IdBlock, image_id) == 64);
    assert!(offset_of!(IdBlock, version) == 80);
    assert!(offset_of!(IdBlock, guest_svn) == 84);
    assert!(offset_of!(IdBlock, policy) == 88);

    assert!(size_of::<EcdsaSignature>() == 512);
    assert!(offset_of!(EcdsaSignature, s) == 72);
    assert!(size_of::<EcdsaPublicKey>() == 1028);
    assert!(offset_of!(EcdsaPublicKey, qx) == 4);
    assert!(offset_of!(EcdsaPublicKey, qy) == 76);

    assert!(size_of::<IdAuthentication>() == 4096);
    assert!(offset_of!(IdAuthentication, author_key_algorithm) == 4);
    assert!(offset_of!(IdAuthentication, id_block_signature) == 0x40);
    assert!(offset_of!(IdAuthentication, id_key) == 0x240);
    assert!(offset_of!(IdAuthentication, id_key_signature) == 0x680);
    assert!(offset_of!(IdAuthentication, author_key) == 0x880);
};
