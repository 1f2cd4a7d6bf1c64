//! The entry in assembly, with the numbers that it shares with the rest.

use core::arch::global_asm;

use nacre_stage0_abi::stop::{STOP_PORT, Stop};
use nacre_stage0_abi::{ParametersPage, entry, layout, tdx};

// The entry takes this one for granted.
const _: () = assert!(entry::TAG_TDX == 0);

global_asm!(
    include_str!("../entry.s"),
    TAG_PLAIN = const entry::TAG_PLAIN,
    TAG_SNP = const entry::TAG_SNP,
    SCRATCH_START = const layout::SCRATCH.start(),
    SCRATCH_END = const layout::SCRATCH.end(),
    PAGE_TABLES = const layout::PAGE_TABLES,
    STACK = const layout::STAGE0_DATA.end(),
    ENCRYPTION_BIT = const layout::PARAMETERS_PAGE + ParametersPage::ENCRYPTION_BIT_OFFSET as u64,
    STOP_PORT = const STOP_PORT,
    SECOND_ENTRY_PORT = const Stop::SecondEntry.port_value(),
    SECOND_ENTRY_GHCB = const Stop::SecondEntry.ghcb_request(),
    NOT_VALIDATED_GHCB = const Stop::ScratchNotValidated.ghcb_request(),
    NO_ENCRYPTION_BIT_GHCB = const Stop::NoEncryptionBit.ghcb_request(),
    HELPER_STACKS = const layout::HELPER_STACKS,
    HELPER_STACK_SIZE = const layout::HELPER_STACK_SIZE,
    MAILBOX = const layout::MAILBOX_PAGE,
    VP_VMCALL = const tdx::VP_VMCALL,
    REPORT_FATAL_ERROR = const tdx::REPORT_FATAL_ERROR,
    REPORT_FATAL_ERROR_REGISTERS = const tdx::REPORT_FATAL_ERROR_REGISTERS,
);

/// What the entry calls.
#[unsafe(no_mangle)]
extern "C" fn start(tag: u32) -> ! {
    crate::main(tag)
}
