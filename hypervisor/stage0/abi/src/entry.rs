//! How a CPU enters stage0: 32-bit protected mode, flat segments, paging off, at the reset vector.
//!
//! A TDX module leaves no choice about it; SEV-SNP and plain machines get the same by the registers that the
//! VMM sets. Two registers say more:
//!
//! - EDI says what machine this is. On SEV-SNP it is measured; a TDX module makes it zero.
//! - ESI is the index of the CPU, which a TDX module gives, too. On TDX all CPUs come here at once, and those that
//!   are not the first wait. On the others only CPU 0 may come: any other was sent by a hostile host.

/// The first instruction. The segment bases are zero.
pub const RESET_VECTOR: u64 = 0xffff_fff0;

/// EDI of a TDX guest: the module gives no choice.
pub const TAG_TDX: u32 = 0;
/// EDI of an SEV-SNP guest: "SNP".
pub const TAG_SNP: u32 = 0x0050_4e53;
/// EDI of a guest without confidential memory: "PLN".
pub const TAG_PLAIN: u32 = 0x004e_4c50;
