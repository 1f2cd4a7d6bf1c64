//! The state in which a CPU starts, as the VMM sets it with KVM's register calls.

use nacre_stage0_abi::entry;

/// A segment register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Type in bits 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11 (APM volume 2, figure 4-14 and section 15.5.1).
    pub attributes: u16,
    /// The limit in bytes.
    pub limit: u32,
    /// The base address.
    pub base: u64,
}

/// The register of a descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorTable {
    /// The limit in bytes.
    pub limit: u16,
    /// The base address.
    pub base: u64,
}

/// The general registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8_to_r15: [u64; 8],
}

/// All that is measured of a CPU's state. What is not here has its reset value; a VMM that sets more of it, such as
/// an MSR of the save area, changes the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CpuState {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
    pub rip: u64,
    pub general: GeneralRegisters,
}

/// Code, 32 bits, accessed, present, limit in pages.
const FLAT_CODE: u16 = 0xc9b;
/// Data, writable, 32 bits, accessed, present, limit in pages.
const FLAT_DATA: u16 = 0xc93;
const LDT: u16 = 0x82;
const BUSY_TSS: u16 = 0x8b;
/// Protected mode, extension type, native floating-point errors.
const CR0: u64 = 0x31;
const CR4_MACHINE_CHECK: u64 = 0x40;
/// Bit 1 is always set; interrupts are off.
const RFLAGS: u64 = 2;

impl CpuState {
    /// CPU `index` at the entry of stage0 in an SEV-SNP guest.
    #[must_use]
    pub fn stage0_snp(index: u32) -> Self {
        Self::stage0(index, entry::TAG_SNP)
    }

    /// CPU `index` at the entry of stage0 in a guest without confidential memory.
    #[must_use]
    pub fn stage0_plain(index: u32) -> Self {
        Self::stage0(index, entry::TAG_PLAIN)
    }

    /// CPU `index` at the entry of stage0 in a TDX guest, as far as it matters: a TDX module sets it, and nobody else
    /// can (TDX module base specification, 348549, section 22.1).
    #[must_use]
    pub fn stage0_tdx(index: u32) -> Self {
        const NUMERIC_ERROR: u64 = 0x20;
        const VMX_ENABLE: u64 = 0x2000;
        const SYSCALL_LONG_MODE_NO_EXECUTE: u64 = 0x901;
        Self {
            cr0: NUMERIC_ERROR | 1,
            cr4: CR4_MACHINE_CHECK | VMX_ENABLE,
            efer: SYSCALL_LONG_MODE_NO_EXECUTE,
            ..Self::stage0(index, entry::TAG_TDX)
        }
    }

    /// 32-bit protected mode without paging, with flat segments: as a TDX module starts a CPU.
    fn stage0(index: u32, tag: u32) -> Self {
        let flat = |attributes| Segment { selector: 0, attributes, limit: u32::MAX, base: 0 };
        let system = |attributes| Segment { selector: 0, attributes, limit: 0xffff, base: 0 };
        let table = DescriptorTable { limit: 0xffff, base: 0 };
        Self {
            cs: flat(FLAT_CODE),
            ds: flat(FLAT_DATA),
            es: flat(FLAT_DATA),
            fs: flat(FLAT_DATA),
            gs: flat(FLAT_DATA),
            ss: flat(FLAT_DATA),
            ldtr: system(LDT),
            tr: system(BUSY_TSS),
            gdtr: table,
            idtr: table,
            cr0: CR0,
            cr3: 0,
            cr4: CR4_MACHINE_CHECK,
            efer: 0,
            rflags: RFLAGS,
            rip: entry::RESET_VECTOR,
            general: GeneralRegisters {
                rdi: u64::from(tag),
                rsi: u64::from(index),
                ..GeneralRegisters::default()
            },
        }
    }
}
