//! TDX: the module's calls.

use kvm_bindings::kvm_regs;
use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::tdx;
use sha2::{Digest, Sha384};

use super::{Answer, Model};

/// What a call was.
pub enum Called {
    /// The guest goes on.
    On,
    /// The guest asked to be ended.
    Stopped(Stop),
}

/// TDX_OPERAND_INVALID and TDX_PAGE_NOT_FREE-like refusals: only that they are none of the others matters.
const REFUSED: u64 = 0xc000_0100;

impl Model {
    /// TDCALL, in 64-bit mode.
    pub fn tdcall(&mut self, cpu: u32, registers: &mut kvm_regs) -> Result<Called, String> {
        let status = match registers.rax {
            tdx::VP_VMCALL => return fatal_error(registers).map(Called::Stopped),
            tdx::VP_INFO => {
                registers.rcx = self.width.into();
                0
            }
            tdx::MR_RTMR_EXTEND => self.extend(registers.rcx, registers.rdx)?,
            tdx::MEM_PAGE_ACCEPT => {
                let (page, level) = (registers.rcx & !0xfff, registers.rcx & 0xfff);
                if level > 1 {
                    return Err(format!("accepts {:#x}", registers.rcx));
                }
                match self.take(cpu, page, level == 1)? {
                    Answer::Done => 0,
                    Answer::Already => tdx::PAGE_ALREADY_ACCEPTED << 32,
                    Answer::OtherSize => tdx::PAGE_SIZE_MISMATCH << 32 | 1,
                    Answer::Refused => REFUSED << 32,
                }
            }
            other => return Err(format!("TDCALL {other}")),
        };
        registers.rax = status;
        // Leaves may change these.
        (registers.rdx, registers.r8, registers.r9) = (u64::MAX, u64::MAX, u64::MAX);
        (registers.r10, registers.r11) = (u64::MAX, u64::MAX);
        Ok(Called::On)
    }

    /// The same of a machine without confidential memory, through its port.
    pub fn extend_by_port(&mut self, value: u32) -> Result<(), String> {
        let tdx::Extension { register, address } = tdx::Extension::from_port(value);
        self.extend(address, register.into()).map(|_| ())
    }

    fn extend(&mut self, address: u64, register: u64) -> Result<u64, String> {
        let place = usize::try_from(register).ok().and_then(|index| self.registers.get(index));
        let before = *place.ok_or_else(|| format!("extends register {register}"))?;
        let bytes = address.is_multiple_of(64).then(|| self.memory.read(address, 48)).flatten();
        let bytes = bytes.ok_or_else(|| format!("extends from {address:#x}"))?;
        if self.refuses_extension {
            return Ok(REFUSED << 32);
        }
        if let Some(place) = usize::try_from(register).ok().and_then(|index| self.registers.get_mut(index)) {
            *place = extended(&before, &bytes);
        }
        Ok(0)
    }
}

/// What a register holds after an extension.
pub fn extended(before: &[u8; 48], digest: &[u8]) -> [u8; 48] {
    Sha384::new().chain_update(before).chain_update(digest).finalize().into()
}

/// TDG.VP.VMCALL: the only request is ReportFatalError.
fn fatal_error(registers: &kvm_regs) -> Result<Stop, String> {
    let asked = registers.r10 == 0 && registers.r11 == tdx::REPORT_FATAL_ERROR;
    let stop = u32::try_from(registers.r12).ok().and_then(Stop::from_port).filter(|_| asked);
    let stop = stop.ok_or_else(|| format!("VMCALL {:#x} with {:#x}", registers.r11, registers.r12))?;
    let words = [
        registers.r14,
        registers.r15,
        registers.rbx,
        registers.rdi,
        registers.rsi,
        registers.r8,
        registers.r9,
        registers.rdx,
    ];
    let message: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    if registers.rcx != tdx::REPORT_FATAL_ERROR_REGISTERS || message != stop.message() {
        return Err(format!("{stop:?} with message {:?}", String::from_utf8_lossy(&message)));
    }
    Ok(stop)
}
