//! Ranges of pages, in the kinds that the firmware knows.

use serde::Serialize;

/// How a page is launched (SEV-SNP firmware ABI, section 8.17.2, `PAGE_TYPE`). CPU states are not among them: KVM
/// adds those itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageKind {
    /// Address and content are measured.
    Normal,
    /// The page is zero, and measured as such.
    Zero,
    /// The address is measured, the content is not.
    Unmeasured,
    /// The firmware writes secrets into it.
    Secrets,
    /// The host writes CPUID values into it, and the firmware checks them.
    Cpuid,
}

impl PageKind {
    /// The firmware's number, which is also KVM's.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Normal => 1,
            Self::Zero => 3,
            Self::Unmeasured => 4,
            Self::Secrets => 5,
            Self::Cpuid => 6,
        }
    }

    /// Whether the security processor hashes the page, or would if it were not known to be zero.
    #[must_use]
    pub const fn is_measured(self) -> bool {
        matches!(self, Self::Normal | Self::Zero)
    }
}

/// Pages that follow each other and are launched in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRange {
    name: &'static str,
    gpa: u64,
    kind: PageKind,
    content: Vec<u8>,
}

impl PageRange {
    pub(super) const fn new(name: &'static str, gpa: u64, kind: PageKind, content: Vec<u8>) -> Self {
        Self { name, gpa, kind, content }
    }

    /// A page whose content somebody else decides.
    pub(super) fn without_content(name: &'static str, gpa: u64, kind: PageKind) -> Self {
        Self::new(name, gpa, kind, vec![0; 4096])
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is.
    #[must_use]
    pub const fn gpa(&self) -> u64 {
        self.gpa
    }

    /// How it is launched.
    #[must_use]
    pub const fn kind(&self) -> PageKind {
        self.kind
    }

    /// Its bytes; zeros where the plan does not decide them.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Each page with its address.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8; 4096])> {
        let (pages, _) = self.content.as_chunks::<4096>();
        (self.gpa..).step_by(4096).zip(pages)
    }
}
