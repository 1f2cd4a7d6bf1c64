//! Reports and quotes in memory.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bytes of a `TDREPORT`.
pub const REPORT_LEN: usize = 1024;

/// `TDREPORT_STRUCT` (348551).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TdReport {
    pub mac: ReportMac,
    pub tcb_info: TeeTcbInfo,
    pub reserved: [u8; 17],
    pub td_info: TdInfo,
}

/// `REPORTMACSTRUCT`: the rest's hashes, and what makes a processor believe them.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ReportMac {
    /// Type, subtype, version, and a zero.
    pub report_type: [u8; 4],
    pub reserved: [u8; 12],
    pub cpu_svn: [u8; 16],
    /// SHA-384 of [`TeeTcbInfo`].
    pub tcb_info_hash: [u8; 48],
    /// SHA-384 of [`TdInfo`].
    pub td_info_hash: [u8; 48],
    pub report_data: [u8; 64],
    pub reserved1: [u8; 32],
    /// HMAC-SHA-256 of all before.
    pub mac: [u8; 32],
}

/// `TEE_TCB_INFO`: the module.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TeeTcbInfo {
    /// Which of the fields count.
    pub valid: U64,
    pub tee_tcb_svn: [u8; 16],
    pub mr_seam: [u8; 48],
    pub mr_signer_seam: [u8; 48],
    pub attributes: [u8; 8],
    pub reserved: [u8; 111],
}

/// `TDINFO_STRUCT`: the guest.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TdInfo {
    pub attributes: U64,
    pub xfam: U64,
    pub mr_td: [u8; 48],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    pub servtd_hash: [u8; 48],
    pub reserved: [u8; 64],
}

/// A quote's header, version 4.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct QuoteHeader {
    pub version: U16,
    pub attestation_key_type: U16,
    pub tee_type: U32,
    pub reserved: U32,
    pub qe_vendor: [u8; 16],
    pub user_data: [u8; 20],
}

/// A quote's body for TDX 1.0.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct QuoteBody {
    pub tee_tcb_svn: [u8; 16],
    pub mr_seam: [u8; 48],
    pub mr_signer_seam: [u8; 48],
    pub seam_attributes: [u8; 8],
    pub td_attributes: U64,
    pub xfam: U64,
    pub mr_td: [u8; 48],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    pub report_data: [u8; 64],
}

/// The part of a quote that the attestation key signs.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SignedQuote {
    pub header: QuoteHeader,
    pub body: QuoteBody,
}

/// An enclave's report without its MAC (SDM volume 3D, "REPORT").
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct EnclaveReport {
    pub cpu_svn: [u8; 16],
    pub misc_select: U32,
    pub reserved: [u8; 28],
    pub attributes: [u8; 16],
    pub mr_enclave: [u8; 32],
    pub reserved1: [u8; 32],
    pub mr_signer: [u8; 32],
    pub reserved2: [u8; 96],
    pub isv_prod_id: U16,
    pub isv_svn: U16,
    pub reserved3: [u8; 60],
    pub report_data: [u8; 64],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<TdReport>() == REPORT_LEN);
    assert!(offset_of!(ReportMac, report_data) == 128);
    assert!(offset_of!(ReportMac, mac) == 224);
    assert!(offset_of!(TdReport, tcb_info) == 256);
    assert!(size_of::<TeeTcbInfo>() == 239);
    assert!(offset_of!(TdReport, td_info) == 512);
    assert!(offset_of!(TdInfo, mr_td) == 16);
    assert!(offset_of!(TdInfo, mr_config_id) == 64);
    assert!(offset_of!(TdInfo, rtmr) == 208);
    assert!(offset_of!(TdInfo, servtd_hash) == 400);
    assert!(size_of::<QuoteHeader>() == 48);
    assert!(size_of::<QuoteBody>() == 584);
    assert!(offset_of!(QuoteBody, mr_td) == 136);
    assert!(offset_of!(QuoteBody, rtmr) == 328);
    assert!(offset_of!(QuoteBody, report_data) == 520);
    assert!(size_of::<EnclaveReport>() == 384);
    assert!(offset_of!(EnclaveReport, mr_signer) == 128);
    assert!(offset_of!(EnclaveReport, isv_prod_id) == 256);
};
