//! A CPU's measured first state, to KVM and back.

use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use nacre_launch::{CpuState, DescriptorTable, GeneralRegisters, Segment};

use super::registers::{APIC_X2, set_conveniences};
use super::{CpuError, failed};

/// The reset values of the x87 and SSE control registers (APM volume 2, section 14.1.3), which the measured state has.
const X87_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// Puts CPU `id` into `state`. What is not part of the state keeps its reset value, and so its measurement.
///
/// # Errors
/// KVM refuses one of the requests.
pub fn set(vcpu: &VcpuFd, id: u8, state: &CpuState) -> Result<(), CpuError> {
    let mut special = vcpu.get_sregs().map_err(failed(id, "KVM_GET_SREGS"))?;
    fill_special(&mut special, state);
    // No part of the measured state: it belongs to the interrupt controller.
    special.apic_base |= APIC_X2;
    vcpu.set_sregs(&special).map_err(failed(id, "KVM_SET_SREGS"))?;
    vcpu.set_regs(&general(state)).map_err(failed(id, "KVM_SET_REGS"))?;
    let fpu = kvm_fpu { fcw: X87_CONTROL, mxcsr: MXCSR, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(failed(id, "KVM_SET_FPU"))?;
    // Neither of these is in the save area.
    set_conveniences(vcpu, id)
}

/// The state of CPU `id` as KVM has it.
///
/// # Errors
/// KVM refuses one of the requests.
pub fn get(vcpu: &VcpuFd, id: u8) -> Result<CpuState, CpuError> {
    let special = vcpu.get_sregs().map_err(failed(id, "KVM_GET_SREGS"))?;
    let registers = vcpu.get_regs().map_err(failed(id, "KVM_GET_REGS"))?;
    Ok(read(&special, &registers))
}

fn fill_special(special: &mut kvm_sregs, state: &CpuState) {
    special.cs = to_segment(state.cs);
    special.ds = to_segment(state.ds);
    special.es = to_segment(state.es);
    special.fs = to_segment(state.fs);
    special.gs = to_segment(state.gs);
    special.ss = to_segment(state.ss);
    special.ldt = to_segment(state.ldtr);
    special.tr = to_segment(state.tr);
    special.gdt = to_table(state.gdtr);
    special.idt = to_table(state.idtr);
    special.cr0 = state.cr0;
    special.cr3 = state.cr3;
    special.cr4 = state.cr4;
    special.efer = state.efer;
}

fn general(state: &CpuState) -> kvm_regs {
    let registers = state.general;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = registers.r8_to_r15;
    kvm_regs {
        rax: registers.rax,
        rbx: registers.rbx,
        rcx: registers.rcx,
        rdx: registers.rdx,
        rsi: registers.rsi,
        rdi: registers.rdi,
        rsp: registers.rsp,
        rbp: registers.rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: state.rip,
        rflags: state.rflags,
    }
}

fn read(special: &kvm_sregs, registers: &kvm_regs) -> CpuState {
    let kvm_regs { r8, r9, r10, r11, r12, r13, r14, r15, .. } = *registers;
    CpuState {
        cs: from_segment(&special.cs),
        ds: from_segment(&special.ds),
        es: from_segment(&special.es),
        fs: from_segment(&special.fs),
        gs: from_segment(&special.gs),
        ss: from_segment(&special.ss),
        ldtr: from_segment(&special.ldt),
        tr: from_segment(&special.tr),
        gdtr: from_table(&special.gdt),
        idtr: from_table(&special.idt),
        cr0: special.cr0,
        cr3: special.cr3,
        cr4: special.cr4,
        efer: special.efer,
        rflags: registers.rflags,
        rip: registers.rip,
        general: GeneralRegisters {
            rax: registers.rax,
            rbx: registers.rbx,
            rcx: registers.rcx,
            rdx: registers.rdx,
            rsi: registers.rsi,
            rdi: registers.rdi,
            rbp: registers.rbp,
            rsp: registers.rsp,
            r8_to_r15: [r8, r9, r10, r11, r12, r13, r14, r15],
        },
    }
}

fn to_segment(segment: Segment) -> kvm_segment {
    let field = |shift: u32, width: u32| {
        u8::try_from(u32::from(segment.attributes) >> shift & ((1 << width) - 1)).unwrap_or(0)
    };
    let present = field(7, 1);
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: field(0, 4),
        s: field(4, 1),
        dpl: field(5, 2),
        present,
        avl: field(8, 1),
        l: field(9, 1),
        db: field(10, 1),
        g: field(11, 1),
        unusable: 1 - present,
        padding: 0,
    }
}

fn from_segment(segment: &kvm_segment) -> Segment {
    let fields = [
        (segment.type_, 0),
        (segment.s, 4),
        (segment.dpl, 5),
        (segment.present, 7),
        (segment.avl, 8),
        (segment.l, 9),
        (segment.db, 10),
        (segment.g, 11),
    ];
    let attributes = fields.into_iter().fold(0, |sum, (field, shift)| sum | u16::from(field) << shift);
    Segment { selector: segment.selector, attributes, limit: segment.limit, base: segment.base }
}

fn to_table(table: DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, ..Default::default() }
}

fn from_table(table: &kvm_dtable) -> DescriptorTable {
    DescriptorTable { limit: table.limit, base: table.base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kvm_gets_is_the_state_again() {
        let mut state = CpuState::stage0_snp(7);
        state.general.r8_to_r15 = [8, 9, 10, 11, 12, 13, 14, 15];
        state.cs.attributes = 0xaf3;
        let mut special = kvm_sregs::default();
        fill_special(&mut special, &state);
        assert_eq!(read(&special, &general(&state)), state);
    }

    #[test]
    fn a_flat_code_segment_has_its_attributes_in_kvms_fields() {
        let code = to_segment(CpuState::stage0_plain(0).cs);
        let fields = (code.type_, code.s, code.dpl, code.present, code.l, code.db, code.g, code.unusable);
        assert_eq!(fields, (0xb, 1, 0, 1, 0, 1, 1, 0));
    }
}
