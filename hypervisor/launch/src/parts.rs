//! A plan as one list, for people and for tools that are not ours.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha384};
use zerocopy::IntoBytes;

use crate::abi::{PageInfo, Vmsa};
use crate::digest::Measurement;
use crate::plan::{LaunchPlan, PageKind};

/// A range of pages or a CPU state, in launch order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// What it is, in a word.
    pub name: Cow<'a, str>,
    /// How it is launched.
    pub kind: PartKind,
    /// The guest-physical address that is measured.
    pub gpa: u64,
    /// Its bytes; zeros where the plan does not decide them.
    pub content: Cow<'a, [u8]>,
}

/// The kinds of pages, and CPU states, in the words of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
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
    /// The page that KVM builds of a CPU's state.
    Vmsa,
}

impl LaunchPlan {
    /// Every range of pages and then every CPU state, in launch order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let pages = self.pages().iter().map(|range| Part {
            name: Cow::Borrowed(range.name()),
            kind: range.kind().into(),
            gpa: range.gpa(),
            content: Cow::Borrowed(range.content()),
        });
        let cpus = self.cpus().iter().enumerate().map(|(index, cpu)| Part {
            name: Cow::Owned(format!("cpu{index}")),
            kind: PartKind::Vmsa,
            gpa: PageInfo::VMSA_GPA,
            content: Cow::Owned(Vmsa::from(cpu).as_bytes().to_vec()),
        });
        pages.chain(cpus)
    }
}

impl Part<'_> {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::try_from(self.content.len()).unwrap_or(u64::MAX)
    }

    /// Whether there is nothing in it, which no plan has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// The SHA-384 of the content, if the content is measured at all.
    #[must_use]
    pub fn hash(&self) -> Option<Measurement> {
        self.kind.measures_content().then(|| Measurement(Sha384::digest(&self.content).into()))
    }
}

impl PartKind {
    /// Whether the content counts, or only the address.
    #[must_use]
    pub const fn measures_content(self) -> bool {
        matches!(self, Self::Normal | Self::Zero | Self::Vmsa)
    }

    /// As in the manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Zero => "zero",
            Self::Unmeasured => "unmeasured",
            Self::Secrets => "secrets",
            Self::Cpuid => "cpuid",
            Self::Vmsa => "vmsa",
        }
    }
}

impl From<PageKind> for PartKind {
    fn from(kind: PageKind) -> Self {
        match kind {
            PageKind::Normal => Self::Normal,
            PageKind::Zero => Self::Zero,
            PageKind::Unmeasured => Self::Unmeasured,
            PageKind::Secrets => Self::Secrets,
            PageKind::Cpuid => Self::Cpuid,
        }
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
