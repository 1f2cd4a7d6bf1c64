//! SEV-SNP: PVALIDATE and the GHCB's MSR.

use kvm_bindings::kvm_regs;
use nacre_stage0_abi::stop::Stop;

use super::{Answer, Model};

const CARRY: u64 = 1;

impl Model {
    /// PVALIDATE (APM volume 3): address in RAX, size in ECX, EDX says to validate. The result is in EAX and the carry.
    pub fn pvalidate(&mut self, cpu: u32, registers: &mut kvm_regs) -> Result<(), String> {
        let low = |register: u64| register & u64::from(u32::MAX);
        let (page, large) = (registers.rax, low(registers.rcx));
        if low(registers.rdx) != 1 || large > 1 {
            return Err(format!("PVALIDATE with ECX {:#x} and EDX {:#x}", registers.rcx, registers.rdx));
        }
        let answer = self.take(cpu, page, large == 1)?;
        registers.rflags &= !CARRY;
        registers.rax = match answer {
            Answer::Done => 0,
            Answer::Already => {
                registers.rflags |= CARRY;
                0
            }
            Answer::Refused => 1,
            Answer::OtherSize => 6,
        };
        Ok(())
    }

    /// VMGEXIT: the only request is to end the guest.
    pub fn vmgexit(&self) -> Result<Stop, String> {
        let [low, high, code, ..] = self.ghcb.to_le_bytes();
        let termination = low == 0 && high & 0xf == 1 && self.ghcb >> 24 == 0;
        let stop = termination.then(|| Stop::from_codes(high >> 4, code)).flatten();
        stop.ok_or_else(|| format!("asks {:#x} of the host", self.ghcb))
    }
}
