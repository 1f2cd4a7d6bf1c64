//! What the firmware hashes for each page.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `PAGE_INFO`: SEV-SNP firmware ABI, section 8.17.2, table "Layout of the PAGE_INFO structure". The launch digest after
/// a page is the SHA-384 of this.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PageInfo {
    /// The launch digest before this page.
    pub digest_current: [u8; 48],
    /// SHA-384 of a normal or CPU state page, zero for every other kind.
    pub contents: [u8; 48],
    /// The size of this structure.
    pub length: u16,
    /// The kind of page.
    pub page_type: u8,
    /// Whether the page belongs to an initial migration image.
    pub is_imi: u8,
    /// Permissions of VMPL 1 to 3 and a reserved byte, all zero: KVM offers none.
    pub permissions: [u8; 4],
    /// The page's guest-physical address.
    pub gpa: u64,
}

impl PageInfo {
    /// The size of the structure, as it is in [`PageInfo::length`].
    pub const LENGTH: u16 = 0x70;
    /// The page type of a CPU state page; the others are [`PageKind`](crate::PageKind)'s.
    pub const TYPE_VMSA: u8 = 2;
    /// The address that CPU state pages are measured with: all ones, page aligned, 48 bits.
    pub const VMSA_GPA: u64 = 0xffff_ffff_f000;
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<PageInfo>() == PageInfo::LENGTH as usize);
    assert!(offset_of!(PageInfo, contents) == 0x30);
    assert!(offset_of!(PageInfo, length) == 0x60);
    assert!(offset_of!(PageInfo, page_type) == 0x62);
    assert!(offset_of!(PageInfo, is_imi) == 0x63);
    assert!(offset_of!(PageInfo, permissions) == 0x64);
    assert!(offset_of!(PageInfo, gpa) == 0x68);
};
