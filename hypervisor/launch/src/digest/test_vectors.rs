//! The pages and CPU states that known digests were computed from.

use crate::cpu_state::{CpuState, DescriptorTable, GeneralRegisters, Segment};

/// CPUID signature of EPYC-Milan in QEMU.
pub const MILAN: u64 = 0x00a0_0f11;
/// CPUID signature of EPYC-Genoa in QEMU.
pub const GENOA: u64 = 0x00a1_0f10;

pub const ZEROS: [u8; 4096] = [0; 4096];
pub const FILLED: [u8; 4096] = [0xcc; 4096];

/// Each byte is the low byte of its place.
pub fn pattern() -> [u8; 4096] {
    std::array::from_fn(|place| u8::try_from(place % 256).unwrap())
}

fn segment(selector: u16, attributes: u16, limit: u32) -> Segment {
    Segment { selector, attributes, limit, base: 0 }
}

/// A CPU in QEMU's reset state.
pub fn qemu_reset(signature: u64) -> CpuState {
    let data = segment(0, 0x93, 0xffff);
    CpuState {
        cs: Segment { base: 0xffff_0000, ..segment(0xf000, 0x9b, 0xffff) },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: 0x6000_0010,
        rip: 0xfff0,
        general: GeneralRegisters { rdx: signature, ..GeneralRegisters::default() },
        ..vmsa32(0)
    }
}

/// A flat 32-bit state.
pub fn vmsa32(index: u64) -> CpuState {
    let data = segment(0, 0xc93, u32::MAX);
    let table = DescriptorTable { limit: 0xffff, base: 0 };
    CpuState {
        cs: segment(0, 0xc9b, u32::MAX),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ldtr: segment(0, 0x82, 0xffff),
        tr: segment(0, 0x8b, 0xffff),
        gdtr: table,
        idtr: table,
        cr0: 0x31,
        cr3: 0,
        cr4: 0,
        efer: 0,
        rflags: 2,
        rip: 0xffff_fff0,
        general: GeneralRegisters { rdi: 0x50_4e53, rsi: index, ..GeneralRegisters::default() },
    }
}

/// A 64-bit state with paging on.
pub fn vmsa64() -> CpuState {
    let data = segment(0x10, 0xc93, u32::MAX);
    CpuState {
        cs: segment(8, 0xa9b, u32::MAX),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: 0x8000_0011,
        cr3: 0x9000,
        cr4: 0x20,
        efer: 0x500,
        rip: 0x10_0000,
        general: GeneralRegisters { rsi: 0x7000, ..GeneralRegisters::default() },
        ..vmsa32(0)
    }
}
