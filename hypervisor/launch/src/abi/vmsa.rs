//! The page with a CPU's state.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::cpu_state::{CpuState, DescriptorTable, Segment};

/// A segment register (APM, appendix B, table B-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct VmsaSegment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

/// The state save area of an encrypted guest's CPU (APM, appendix B, table B-4 "VMSA Layout, State Save Area for
/// SEV-ES"), as KVM builds it from the registers that the VMM sets.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Vmsa {
    pub es: VmsaSegment,
    pub cs: VmsaSegment,
    pub ss: VmsaSegment,
    pub ds: VmsaSegment,
    pub fs: VmsaSegment,
    pub gs: VmsaSegment,
    pub gdtr: VmsaSegment,
    pub ldtr: VmsaSegment,
    pub idtr: VmsaSegment,
    pub tr: VmsaSegment,
    reserved_0a0: [u8; 42],
    pub vmpl: u8,
    pub cpl: u8,
    reserved_0cc: [u8; 4],
    pub efer: u64,
    reserved_0d8: [u8; 104],
    pub xss: u64,
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_180: [u8; 88],
    pub rsp: u64,
    reserved_1e0: [u8; 24],
    pub rax: u64,
    reserved_200: [u8; 64],
    pub cr2: u64,
    reserved_248: [u8; 32],
    pub g_pat: u64,
    reserved_270: [u8; 120],
    pub pkru: u32,
    pub tsc_aux: u32,
    reserved_2f0: [u8; 24],
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    reserved_320: [u8; 8],
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8_to_r15: [u64; 8],
    reserved_380: [u8; 48],
    pub sev_features: u64,
    reserved_3b8: [u8; 48],
    pub xcr0: u64,
    reserved_3f0: [u8; 24],
    pub mxcsr: u32,
    pub x87_ftw: u16,
    pub x87_fsw: u16,
    pub x87_fcw: u16,
    reserved_412: [u8; 3054],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<VmsaSegment>() == 16);
    assert!(size_of::<Vmsa>() == 4096);
    assert!(offset_of!(Vmsa, cs) == 0x10);
    assert!(offset_of!(Vmsa, gdtr) == 0x60);
    assert!(offset_of!(Vmsa, ldtr) == 0x70);
    assert!(offset_of!(Vmsa, idtr) == 0x80);
    assert!(offset_of!(Vmsa, tr) == 0x90);
    assert!(offset_of!(Vmsa, vmpl) == 0xca);
    assert!(offset_of!(Vmsa, cpl) == 0xcb);
    assert!(offset_of!(Vmsa, efer) == 0xd0);
    assert!(offset_of!(Vmsa, xss) == 0x140);
    assert!(offset_of!(Vmsa, cr4) == 0x148);
    assert!(offset_of!(Vmsa, cr3) == 0x150);
    assert!(offset_of!(Vmsa, cr0) == 0x158);
    assert!(offset_of!(Vmsa, dr7) == 0x160);
    assert!(offset_of!(Vmsa, dr6) == 0x168);
    assert!(offset_of!(Vmsa, rflags) == 0x170);
    assert!(offset_of!(Vmsa, rip) == 0x178);
    assert!(offset_of!(Vmsa, rsp) == 0x1d8);
    assert!(offset_of!(Vmsa, rax) == 0x1f8);
    assert!(offset_of!(Vmsa, cr2) == 0x240);
    assert!(offset_of!(Vmsa, g_pat) == 0x268);
    assert!(offset_of!(Vmsa, pkru) == 0x2e8);
    assert!(offset_of!(Vmsa, tsc_aux) == 0x2ec);
    assert!(offset_of!(Vmsa, rcx) == 0x308);
    assert!(offset_of!(Vmsa, rbx) == 0x318);
    assert!(offset_of!(Vmsa, rbp) == 0x328);
    assert!(offset_of!(Vmsa, rdi) == 0x338);
    assert!(offset_of!(Vmsa, r8_to_r15) == 0x340);
    assert!(offset_of!(Vmsa, sev_features) == 0x3b0);
    assert!(offset_of!(Vmsa, xcr0) == 0x3e8);
    assert!(offset_of!(Vmsa, mxcsr) == 0x408);
    assert!(offset_of!(Vmsa, x87_ftw) == 0x40c);
    assert!(offset_of!(Vmsa, x87_fcw) == 0x410);
};

/// EFER.SVME, which a CPU in a guest has (APM 15.4).
const EFER_SVME: u64 = 1 << 12;
/// CR0.ET is always set (APM 3.1.1).
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
/// CR0.CD and CR0.NW, which KVM clears by its quirk `KVM_X86_QUIRK_CD_NW_CLEARED`.
const CR0_NO_CACHE: u64 = 1 << 30 | 1 << 29;
/// CR4.MCE, which KVM sets where the host has it: everywhere.
const CR4_MACHINE_CHECK: u64 = 1 << 6;
/// Reset values (APM, table 14-1; PAT: APM 7.8.2; x87 and SSE: APM 14.1.3).
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
const PAT: u64 = 0x0007_0406_0007_0406;
const XCR0_X87: u64 = 1;
const MXCSR: u32 = 0x1f80;
const X87_CONTROL: u16 = 0x37f;
/// `SEV_FEATURES`: the guest is an SEV-SNP guest (APM, table B-4). KVM sets it; nacre asks for no other feature.
const FEATURE_SNP: u64 = 1;

impl From<&CpuState> for Vmsa {
    /// The page that KVM's `sev_es_sync_vmsa` builds when the VMM has set these registers, and nothing else.
    fn from(cpu: &CpuState) -> Self {
        let general = &cpu.general;
        Self {
            es: cpu.es.into(),
            cs: cpu.cs.into(),
            ss: cpu.ss.into(),
            ds: cpu.ds.into(),
            fs: cpu.fs.into(),
            gs: cpu.gs.into(),
            gdtr: cpu.gdtr.into(),
            ldtr: cpu.ldtr.into(),
            idtr: cpu.idtr.into(),
            tr: cpu.tr.into(),
            efer: cpu.efer | EFER_SVME,
            cr4: cpu.cr4 | CR4_MACHINE_CHECK,
            cr3: cpu.cr3,
            cr0: (cpu.cr0 | CR0_EXTENSION_TYPE) & !CR0_NO_CACHE,
            dr7: DR7,
            dr6: DR6,
            rflags: cpu.rflags,
            rip: cpu.rip,
            rsp: general.rsp,
            rax: general.rax,
            g_pat: PAT,
            rcx: general.rcx,
            rdx: general.rdx,
            rbx: general.rbx,
            rbp: general.rbp,
            rsi: general.rsi,
            rdi: general.rdi,
            r8_to_r15: general.r8_to_r15,
            sev_features: FEATURE_SNP,
            xcr0: XCR0_X87,
            mxcsr: MXCSR,
            x87_fcw: X87_CONTROL,
            ..Self::new_zeroed()
        }
    }
}

impl From<Segment> for VmsaSegment {
    fn from(segment: Segment) -> Self {
        let Segment { selector, attributes, limit, base } = segment;
        Self { selector, attributes, limit, base }
    }
}

impl From<DescriptorTable> for VmsaSegment {
    fn from(table: DescriptorTable) -> Self {
        Self { selector: 0, attributes: 0, limit: u32::from(table.limit), base: table.base }
    }
}

#[cfg(test)]
mod tests;
