//! TDX: the module's calls that stage0 makes, and what it leaves in the runtime measurement registers.
//!
//! Numbers are those of the TDX module's ABI specification 1.5 (348551) and of the guest-hypervisor communication
//! interface 1.5 (348552).

use crate::images::ImageKind;

/// TDG.VP.VMCALL: asks the VMM.
pub const VP_VMCALL: u64 = 0;
/// TDG.VP.INFO: what the module says of the guest.
pub const VP_INFO: u64 = 1;
/// TDG.MR.RTMR.EXTEND.
pub const MR_RTMR_EXTEND: u64 = 2;
/// TDG.MEM.PAGE.ACCEPT.
pub const MEM_PAGE_ACCEPT: u64 = 6;

/// VP.VMCALL's sub-function that ends the guest.
pub const REPORT_FATAL_ERROR: u64 = 0x1_0003;
/// The registers that go to the VMM with it: RDX, RBX, RSI, RDI, R8 to R15.
pub const REPORT_FATAL_ERROR_REGISTERS: u64 = 0xffcc;

/// The upper half of a call's result: the page is the guest's already.
pub const PAGE_ALREADY_ACCEPTED: u64 = 0x0000_0b0a;
/// The upper half of a call's result: the host has the memory in pages of another size.
pub const PAGE_SIZE_MISMATCH: u64 = 0xc000_0b0b;

/// CPUID leaf that says "IntelTDX    " in EBX, EDX, ECX.
pub const CPUID_LEAF: u32 = 0x21;
/// Its three registers, in that order.
pub const CPUID_SIGNATURE: [u32; 3] = [0x6574_6e49, 0x5844_546c, 0x2020_2020];

/// The I/O port of a machine without confidential memory whose software module extends registers: an [`Extension`] is
/// written to it. Where there is no such module the port is nothing.
pub const EXTEND_PORT: u16 = 0xf8;

/// The operands of TDG.MR.RTMR.EXTEND as they go to [`EXTEND_PORT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The register's number, 0 to 63 here, of which a module has 4.
    pub register: u8,
    /// Where the 48 bytes are: an address below 4 GiB that 64 divides.
    pub address: u64,
}

impl Extension {
    /// What is written to the port; `None` if the operands don't go into it.
    #[must_use]
    pub fn to_port(self) -> Option<u32> {
        let address = u32::try_from(self.address).ok()?;
        (address.is_multiple_of(64) && self.register < 64).then_some(address | u32::from(self.register))
    }

    /// What was written to the port.
    #[must_use]
    pub const fn from_port(value: u32) -> Self {
        Self { register: value.to_le_bytes()[0] & 63, address: (value & !63) as u64 }
    }
}

/// The register that an image is extended into: kernel and initrd, or what they are told.
#[must_use]
pub const fn register_of(kind: ImageKind) -> u8 {
    match kind {
        ImageKind::Kernel | ImageKind::Initrd => 1,
        ImageKind::CommandLine => 2,
    }
}

/// What it is extended by: the image's SHA-256 as the hashes page has it, then zeros. Images are extended in the order
/// of that page.
#[must_use]
pub fn extension(sha256: &[u8; 32]) -> [u8; 48] {
    let mut digest = [0; 48];
    digest.iter_mut().zip(sha256).for_each(|(place, byte)| *place = *byte);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_the_same_behind_the_port() {
        let extension = Extension { register: 2, address: 0x8040 };
        assert_eq!(extension.to_port(), Some(0x8042));
        assert_eq!(Extension::from_port(0x8042), extension);
        for (register, address) in [(64, 0), (0, 0x8020), (0, 1 << 32)] {
            assert_eq!(Extension { register, address }.to_port(), None);
        }
    }
}
