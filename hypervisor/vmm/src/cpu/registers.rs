//! The state in which Linux's 64-bit entry wants the first CPU.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;

use super::{CpuError, failed};
use crate::boot::long_mode;
use crate::layout;

const CR0_PROTECTED: u64 = 1;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8 | 1 << 10;
/// Bit 1 of RFLAGS is always set; interrupts are off.
const RFLAGS: u64 = 2;
/// `IA32_APIC_BASE`: x2APIC mode. Its registers are MSRs, which KVM serves without decoding an instruction.
pub(super) const APIC_X2: u64 = 1 << 10;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Enabled, write-back: with MTRRs off a kernel would take all memory for uncached.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Makes the first CPU ready to run at `entry`, for the tables that [`crate::boot::place`] has made.
///
/// # Errors
/// KVM refuses one of the requests.
pub fn start_at(vcpu: &VcpuFd, entry: u64) -> Result<(), CpuError> {
    set_segments(vcpu)?;
    let registers = kvm_regs { rip: entry, rsi: layout::ZERO_PAGE, rflags: RFLAGS, ..Default::default() };
    vcpu.set_regs(&registers).map_err(failed(0, "KVM_SET_REGS"))?;
    set_conveniences(vcpu, 0)
}

/// Sets what a kernel expects of firmware, and can do without.
pub(super) fn set_conveniences(vcpu: &VcpuFd, id: u8) -> Result<(), CpuError> {
    let msrs = [
        kvm_msr_entry { index: MSR_MISC_ENABLE, data: MISC_ENABLE_FAST_STRING, ..Default::default() },
        kvm_msr_entry { index: MSR_MTRR_DEFAULT_TYPE, data: MTRR_WRITE_BACK, ..Default::default() },
    ];
    let list = Msrs::from_entries(&msrs)
        .map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
        .map_err(failed(id, "KVM_SET_MSRS"))?;
    // The number set may be smaller than asked for: a kernel can do without both.
    vcpu.set_msrs(&list).map_err(failed(id, "KVM_SET_MSRS"))?;
    Ok(())
}

fn set_segments(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let mut special = vcpu.get_sregs().map_err(failed(0, "KVM_GET_SREGS"))?;
    special.cs = long_mode::code_segment();
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = long_mode::data_segment();
    }
    special.tr = long_mode::task_segment();
    special.gdt.base = layout::GDT;
    special.gdt.limit = long_mode::GDT_LIMIT;
    special.idt.base = 0;
    special.idt.limit = 0;
    special.cr3 = layout::PAGE_TABLES;
    special.cr4 |= CR4_PHYSICAL_ADDRESS_EXTENSION;
    special.cr0 |= CR0_PROTECTED | CR0_PAGING;
    special.efer |= EFER_LONG_MODE;
    special.apic_base |= APIC_X2;
    vcpu.set_sregs(&special).map_err(failed(0, "KVM_SET_SREGS"))
}
