//! SEV-SNP: the page of CPUID values, and the structure that leads Linux to it and to the secrets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::PAGE_SIZE;

/// The page of CPUID values (SEV-SNP firmware ABI 56860, section 8.17.2.6, `CPUID_PAGE`).
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuidPage {
    /// How many of the functions count, at most [`CpuidPage::MAX_FUNCTIONS`].
    pub count: u32,
    reserved: [u32; 3],
    /// The functions; from `count` on without meaning.
    pub functions: [CpuidFunction; CpuidPage::MAX_FUNCTIONS],
    trailing: [u8; 1008],
}

impl CpuidPage {
    /// The firmware takes no more, though there would be room.
    pub const MAX_FUNCTIONS: usize = 64;

    /// The values of a function that the page lists.
    #[must_use]
    pub fn find(&self, function: u32, index: u32) -> Option<&CpuidFunction> {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let mut functions = self.functions.iter().take(count);
        functions.find(|entry| entry.eax_in == function && entry.ecx_in == index)
    }
}

/// One function (`CPUID_FUNCTION` of the same section).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct CpuidFunction {
    pub eax_in: u32,
    pub ecx_in: u32,
    pub xcr0_in: u64,
    pub xss_in: u64,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub reserved: u64,
}

/// Linux's `struct cc_blob_sev_info` (`arch/x86/include/asm/sev.h`): where secrets and CPUID values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CcBlob {
    magic: u32,
    version: u16,
    reserved: u16,
    secrets_address: u64,
    secrets_len: u32,
    reserved1: u32,
    cpuid_address: u64,
    cpuid_len: u32,
    reserved2: u32,
}

impl CcBlob {
    /// "AMDE", `CC_BLOB_SEV_HDR_MAGIC`.
    const MAGIC: u32 = 0x4544_4d41;

    /// The structure for pages at these addresses.
    #[must_use]
    pub const fn new(secrets: u64, cpuid: u64) -> Self {
        Self {
            magic: Self::MAGIC,
            version: 0,
            reserved: 0,
            secrets_address: secrets,
            secrets_len: 4096,
            reserved1: 0,
            cpuid_address: cpuid,
            cpuid_len: 4096,
            reserved2: 0,
        }
    }
}

/// The node of Linux's `setup_data` list that leads to a [`CcBlob`] (`struct cc_setup_data`, same file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CcSetupData {
    next: u64,
    kind: u32,
    len: u32,
    blob: u32,
    padding: u32,
}

impl CcSetupData {
    /// `SETUP_CC_BLOB` (`arch/x86/include/uapi/asm/setup_data.h`).
    const KIND: u32 = 7;

    /// The list's only node, for a structure at this address.
    #[must_use]
    pub const fn new(blob: u32) -> Self {
        Self { next: 0, kind: Self::KIND, len: 4, blob, padding: 0 }
    }
}

const _: () = {
    assert!(size_of::<CpuidPage>() as u64 == PAGE_SIZE);
    assert!(core::mem::offset_of!(CpuidPage, functions) == 16);
    assert!(size_of::<CpuidFunction>() == 48);
    assert!(core::mem::offset_of!(CpuidFunction, eax) == 24);
    assert!(size_of::<CcBlob>() == 40);
    assert!(core::mem::offset_of!(CcBlob, secrets_address) == 8);
    assert!(core::mem::offset_of!(CcBlob, cpuid_address) == 24);
    assert!(core::mem::offset_of!(CcSetupData, blob) == 16);
};
