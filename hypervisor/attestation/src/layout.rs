//! The attestation report in memory (SEV-SNP firmware ABI 56860, table "ATTESTATION_REPORT Structure").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bytes of a report.
pub const REPORT_LEN: usize = 1184;
/// The bytes of it that are signed.
pub const SIGNED_LEN: usize = 0x2a0;
/// ECDSA on P-384 with SHA-384.
pub const ALGORITHM_ECDSA_P384_SHA384: u32 = 1;

/// A report.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Report {
    pub version: u32,
    pub guest_svn: u32,
    pub policy: u64,
    pub family_id: [u8; 16],
    pub image_id: [u8; 16],
    pub vmpl: u32,
    pub signature_algorithm: u32,
    pub current_tcb: TcbVersion,
    pub platform_info: u64,
    /// Bit 0: there is an author key. Bits 4:2: who signs, 0 for the VCEK.
    pub key_info: u32,
    pub reserved: u32,
    pub report_data: [u8; 64],
    pub measurement: [u8; 48],
    pub host_data: [u8; 32],
    pub id_key_digest: [u8; 48],
    pub author_key_digest: [u8; 48],
    pub report_id: [u8; 32],
    pub report_id_ma: [u8; 32],
    pub reported_tcb: TcbVersion,
    pub cpuid_family: u8,
    pub cpuid_model: u8,
    pub cpuid_stepping: u8,
    pub reserved_cpuid: [u8; 21],
    pub chip_id: [u8; 64],
    pub committed_tcb: TcbVersion,
    pub current_version: FirmwareVersion,
    pub committed_version: FirmwareVersion,
    pub launch_tcb: TcbVersion,
    pub reserved_end: [u8; 168],
    pub signature: Signature,
}

/// The versions of the parts that a report's key depends on, as processors before Turin write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TcbVersion {
    pub boot_loader: u8,
    pub tee: u8,
    pub reserved: [u8; 4],
    pub snp: u8,
    pub microcode: u8,
}

/// The firmware's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct FirmwareVersion {
    pub build: u8,
    pub minor: u8,
    pub major: u8,
    pub reserved: u8,
}

/// A signature: both numbers little endian.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Signature {
    pub r: [u8; 72],
    pub s: [u8; 72],
    pub reserved: [u8; 368],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Report>() == REPORT_LEN);
    assert!(offset_of!(Report, vmpl) == 0x30);
    assert!(offset_of!(Report, key_info) == 0x48);
    assert!(offset_of!(Report, report_data) == 0x50);
    assert!(offset_of!(Report, measurement) == 0x90);
    assert!(offset_of!(Report, host_data) == 0xc0);
    assert!(offset_of!(Report, id_key_digest) == 0xe0);
    assert!(offset_of!(Report, author_key_digest) == 0x110);
    assert!(offset_of!(Report, report_id) == 0x140);
    assert!(offset_of!(Report, reported_tcb) == 0x180);
    assert!(offset_of!(Report, cpuid_family) == 0x188);
    assert!(offset_of!(Report, chip_id) == 0x1a0);
    assert!(offset_of!(Report, committed_tcb) == 0x1e0);
    assert!(offset_of!(Report, current_version) == 0x1e8);
    assert!(offset_of!(Report, launch_tcb) == 0x1f0);
    assert!(offset_of!(Report, signature) == SIGNED_LEN);
};
