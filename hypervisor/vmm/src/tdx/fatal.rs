//! A guest's request to be ended, by ReportFatalError.

use nacre_control::StopReason;
use nacre_stage0_abi::stop::Stop;

/// KVM's numbers of the general registers, in whose order it reports them.
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;
const RDI: usize = 7;
const R8: usize = 8;
const R9: usize = 9;
const R12: usize = 12;
const R14: usize = 14;
const R15: usize = 15;
/// The registers that hold the message (guest-hypervisor communication interface 1.5, 348552, TDG.VP.VMCALL
/// <ReportFatalError>), eight bytes each.
const MESSAGE: [usize; 8] = [R14, R15, RBX, RDI, RSI, R8, R9, RDX];

/// What the registers of a `KVM_SYSTEM_EVENT_TDX_FATAL` ask for.
///
/// SECURITY: the message is the guest's. Of it only what can be printed is kept.
#[must_use]
pub fn fatal_error(registers: &[u64]) -> StopReason {
    let register = |number: usize| registers.get(number).copied().unwrap_or_default();
    // Bits 31:0; the upper half says whether there is an address as well.
    let [a, b, c, d, ..] = register(R12).to_le_bytes();
    let code = u32::from_le_bytes([a, b, c, d]);
    if let Some(stop) = Stop::from_port(code) {
        let (stage, stage_name) = (stop.stage(), stop.stage_name().to_owned());
        return StopReason::Stage0 { stage, stage_name, code: stop.code(), why: stop.to_string() };
    }
    let bytes = MESSAGE.into_iter().flat_map(|number| register(number).to_le_bytes());
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let message: String = bytes.take_while(|byte| *byte != 0).filter(printable).map(char::from).collect();
    StopReason::Fatal { code, message: message.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(code: u64, message: &[u8]) -> [u64; 16] {
        let mut registers = [0; 16];
        registers[R12] = code;
        for (place, chunk) in MESSAGE.into_iter().zip(message.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            registers[place] = u64::from_le_bytes(word);
        }
        registers
    }

    #[test]
    fn stage0s_reasons_and_others_are_told_apart() {
        let stop = Stop::InitrdHash;
        let text = fatal_error(&registers(stop.port_value().into(), &stop.message())).to_string();
        assert!(text.contains("the initrd is not the one that was measured"), "{text}");
        let message = b"Missing SEPT_VE_DISABLE attribute that Linux can't do without...";
        assert_eq!(
            fatal_error(&registers(1 << 63, message)).to_string(),
            format!("the guest reported a fatal error, code 0x0: {}", String::from_utf8_lossy(message))
        );
    }

    #[test]
    fn a_message_can_not_do_anything_to_a_terminal() {
        let text = fatal_error(&registers(7, b"\x1b[31mred\x07 \xff")).to_string();
        assert_eq!(text, "the guest reported a fatal error, code 0x7: [31mred");
        assert!(fatal_error(&[]).to_string().contains("code 0x0"));
    }
}
