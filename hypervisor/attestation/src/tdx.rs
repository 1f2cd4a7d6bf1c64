//! A software TDX module and quoting enclave: reports and quotes in the hardware's formats, signed by a development chain,
//! and never confidential.
//!
//! - [`TrustDomain`] is what a module keeps of one guest; [`TrustDomain::report`] makes its `TDREPORT`.
//! - [`QuotingEnclave`] makes quotes of reports of the same machine, with the key of a PCK certificate.
//! - [`layout`] is both as they are in memory.
//!
//! Numbers are those of the TDX module's ABI specification 1.5 (348551) and of Intel's "TDX DCAP quoting library API",
//! appendix A.3.
//!
//! A report says in its `MRSEAM`, where the hash of the module is, what it is: it begins with
//! [`CHIP_ID_PREFIX`](crate::CHIP_ID_PREFIX). Nobody who trusts Intel's root accepts a quote of it, because the chain of
//! certificates begins with a root that is made where nacre is installed.

mod domain;
mod enclave;
pub mod layout;

pub use domain::{ReportKey, TrustDomain};
pub use enclave::{EnclaveError, QuotingEnclave};

use crate::software::CHIP_ID_PREFIX;

/// The software's versions and names, which its PCK certificate and its collateral show as well.
pub mod platform {
    /// `CPUSVN`: sixteen versions.
    pub const CPU_SVN: [u8; 16] = [1; 16];
    /// The version of the provisioning certification enclave.
    pub const PCE_SVN: u8 = 1;
    /// The provisioning certification enclave.
    pub const PCE_ID: [u8; 2] = [0; 2];
    /// Family, model, stepping, platform type and custom SKU.
    pub const FMSPC: [u8; 6] = *b"NACRE\0";
    /// `TEE_TCB_SVN`: the versions of the module, of which the second byte, its major version, is 0.
    pub const TEE_TCB_SVN: [u8; 16] = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    /// The quoting enclave's signer.
    pub const QE_MRSIGNER: [u8; 32] = *super::CHIP_ID_PREFIX;
    /// The quoting enclave's product, TD QE.
    pub const QE_PRODUCT: u16 = 2;
    /// The quoting enclave's version.
    pub const QE_SVN: u16 = 1;
    /// The quoting enclave's attributes: initialised, and allowed to provision (SDM volume 3D, "ATTRIBUTES").
    pub const QE_ATTRIBUTES: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
}

/// `MRSEAM` of the software module.
#[must_use]
pub fn software_module() -> [u8; 48] {
    let mut name = [0; 48];
    name.iter_mut().zip(CHIP_ID_PREFIX).for_each(|(place, byte)| *place = *byte);
    name
}

/// Whether a quote with this `MRSEAM` says that its module is software.
#[must_use]
pub fn is_software_module(mr_seam: &[u8; 48]) -> bool {
    mr_seam.starts_with(CHIP_ID_PREFIX)
}
