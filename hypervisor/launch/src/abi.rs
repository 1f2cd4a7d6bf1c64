//! Structures of the SEV-SNP firmware and of the processor that go into a launch.
//!
//! Numbers and offsets are from AMD's documents, named at each: "SEV-SNP firmware ABI" is 56860, "APM" is the
//! Architecture Programmer's Manual volume 2, 24593.

mod id_block;
mod page_info;
mod vmsa;

pub use id_block::{
    ALGORITHM_ECDSA_P384_SHA384, CURVE_P384, EcdsaPublicKey, EcdsaSignature, IdAuthentication, IdBlock,
};
pub use page_info::PageInfo;
pub use vmsa::{Vmsa, VmsaSegment};
