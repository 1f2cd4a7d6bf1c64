//! The policy of an SEV-SNP guest: what the firmware may do with it and on which processors it may run.

use std::fmt;

use thiserror::Error;

/// A guest policy (SEV-SNP firmware ABI, section 4.3, table "Guest Policy Structure") that upstream KVM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy(u64);

impl Policy {
    /// The guest may run where simultaneous multithreading is on. Linux before 6.13 demands it.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, must be one.
    const ONE: u64 = 1 << 17;
    /// A migration agent may be bound to the guest. KVM refuses it.
    const MIGRATE_MA: u64 = 1 << 18;
    /// The host may read and write the guest's memory through the firmware.
    pub const DEBUG: u64 = 1 << 19;
    /// The guest may run on one socket only.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// The guest may run where CXL is on.
    pub const CXL_ALLOW: u64 = 1 << 21;
    /// Memory must be encrypted with AES-256-XTS.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// The power counters must be off.
    pub const RAPL_DIS: u64 = 1 << 23;
    /// Ciphertext must be hidden from the host.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 24;
    /// Pages of the guest must not be swapped by the firmware.
    pub const PAGE_SWAP_DISABLE: u64 = 1 << 25;
    const KNOWN: u64 = (1 << 26) - 1;

    /// A policy from its number.
    ///
    /// # Errors
    /// The firmware or KVM would refuse it.
    pub const fn new(bits: u64) -> Result<Self, PolicyError> {
        if bits & Self::ONE == 0 {
            return Err(PolicyError::ReservedBit(bits));
        }
        if bits & !Self::KNOWN != 0 {
            return Err(PolicyError::Unknown(bits & !Self::KNOWN));
        }
        if bits & Self::MIGRATE_MA != 0 {
            return Err(PolicyError::Migration);
        }
        Ok(Self(bits))
    }

    /// The number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The lowest version of the firmware's interface, major and minor, on which the guest may run.
    #[must_use]
    pub const fn least_interface(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    /// Whether the host may look into the guest: such a guest is not confidential.
    #[must_use]
    pub const fn allows_debugging(self) -> bool {
        self.0 & Self::DEBUG != 0
    }
}

impl Default for Policy {
    /// What every kernel with SEV-SNP takes: multithreading allowed, nothing else.
    fn default() -> Self {
        Self(Self::ONE | Self::SMT)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// Why a number is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Bit 17 is not set.
    #[error("policy {0:#x} has not bit 17 set, which is always one")]
    ReservedBit(u64),
    /// Bits without a meaning are set.
    #[error("policy has unknown bits {0:#x}")]
    Unknown(u64),
    /// KVM has no migration agents.
    #[error("policy allows a migration agent, which KVM refuses")]
    Migration,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0x3_0000, Ok(0x3_0000))]
    #[case(0x2_0137, Ok(0x2_0137))]
    #[case(0x3ff_0000 & !(1 << 18), Ok(0x3fb_0000))]
    #[case(0x1_0000, Err(PolicyError::ReservedBit(0x1_0000)))]
    #[case(0x7_0000, Err(PolicyError::Migration))]
    #[case(0x403_0000, Err(PolicyError::Unknown(0x400_0000)))]
    fn takes_what_kvm_takes(#[case] bits: u64, #[case] expected: Result<u64, PolicyError>) {
        assert_eq!(Policy::new(bits).map(Policy::bits), expected);
    }

    #[test]
    fn the_lowest_version_is_in_the_two_lowest_bytes() {
        assert_eq!(Policy::new(0x3_0137).map(Policy::least_interface), Ok((1, 0x37)));
    }

    #[test]
    fn the_default_is_what_every_kernel_takes() {
        assert_eq!(Policy::default().bits(), 0x3_0000);
        assert!(!Policy::default().allows_debugging());
    }
}
