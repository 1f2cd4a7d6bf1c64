//! The launch digest, as the SEV-SNP firmware computes it.

use std::fmt;

use sha2::{Digest, Sha384};
use zerocopy::IntoBytes;

use crate::abi::{PageInfo, Vmsa};
use crate::cpu_state::CpuState;
use crate::plan::PageKind;

/// The digest while memory is added. CPU states come last: KVM adds them itself when the launch is finished.
#[derive(Debug, Clone)]
pub struct LaunchDigest {
    current: [u8; 48],
}

/// The digest while CPU states are added, in the order of the CPUs.
#[derive(Debug, Clone)]
pub struct CpuDigest {
    current: [u8; 48],
}

/// A launch's measurement: `MEASUREMENT` of an attestation report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Measurement(pub [u8; 48]);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl LaunchDigest {
    /// The digest before the first page: zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { current: [0; 48] }
    }

    /// Adds a page of memory at `gpa`. Its content counts only for [`PageKind::Normal`].
    pub fn add_page(&mut self, gpa: u64, kind: PageKind, content: &[u8; 4096]) {
        let contents = match kind {
            PageKind::Normal => Sha384::digest(content).into(),
            PageKind::Zero | PageKind::Unmeasured | PageKind::Secrets | PageKind::Cpuid => [0; 48],
        };
        self.current = extend(self.current, contents, kind.number(), gpa);
    }

    /// The digest after the last page of memory.
    #[must_use]
    pub const fn into_cpus(self) -> CpuDigest {
        CpuDigest { current: self.current }
    }
}

impl CpuDigest {
    /// Adds the next CPU.
    #[must_use]
    pub fn add_cpu(self, cpu: &CpuState) -> Self {
        let page = Vmsa::from(cpu);
        let contents = Sha384::digest(page.as_bytes()).into();
        Self { current: extend(self.current, contents, PageInfo::TYPE_VMSA, PageInfo::VMSA_GPA) }
    }

    /// The measurement after the last CPU.
    #[must_use]
    pub const fn finish(self) -> Measurement {
        Measurement(self.current)
    }
}

/// SEV-SNP firmware ABI, section 8.17.2.
fn extend(digest_current: [u8; 48], contents: [u8; 48], page_type: u8, gpa: u64) -> [u8; 48] {
    let info = PageInfo {
        digest_current,
        contents,
        length: PageInfo::LENGTH,
        page_type,
        is_imi: 0,
        permissions: [0; 4],
        gpa,
    };
    Sha384::digest(info.as_bytes()).into()
}

impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod firmware_tests;
#[cfg(test)]
pub(crate) mod test_vectors;
#[cfg(test)]
mod tests;
