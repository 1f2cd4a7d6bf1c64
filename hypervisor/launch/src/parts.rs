//! A plan as one list, for people and for tools that are not ours.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha384};
use zerocopy::IntoBytes;

use crate::abi::{PageInfo, Vmsa};
use crate::digest::Measurement;
use crate::plan::{LaunchPlan, Measurer, PageKind};

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
    /// TDX: address and content are measured.
    Measured,
    /// TDX: the address is measured, the content is not.
    Added,
}

impl LaunchPlan {
    /// Every range of pages and then every CPU state that is measured, in launch order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let measurer = self.measurer();
        let measured_cpus = match measurer {
            Measurer::Firmware => self.cpus(),
            Measurer::TdxModule => &[],
        };
        let pages = self.pages().iter().map(move |range| Part {
            name: Cow::Borrowed(range.name()),
            kind: PartKind::of(range.kind(), measurer),
            gpa: range.gpa(),
            content: Cow::Borrowed(range.content()),
        });
        let cpus = measured_cpus.iter().enumerate().map(|(index, cpu)| Part {
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
    const fn of(kind: PageKind, measurer: Measurer) -> Self {
        match (measurer, kind) {
            (Measurer::TdxModule, kind) if kind.is_measured() => Self::Measured,
            (Measurer::TdxModule, _) => Self::Added,
            (Measurer::Firmware, PageKind::Normal) => Self::Normal,
            (Measurer::Firmware, PageKind::Zero) => Self::Zero,
            (Measurer::Firmware, PageKind::Unmeasured) => Self::Unmeasured,
            (Measurer::Firmware, PageKind::Secrets) => Self::Secrets,
            (Measurer::Firmware, PageKind::Cpuid) => Self::Cpuid,
        }
    }

    /// Whether the content counts, or only the address.
    #[must_use]
    pub const fn measures_content(self) -> bool {
        matches!(self, Self::Normal | Self::Zero | Self::Vmsa | Self::Measured)
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
            Self::Measured => "measured",
            Self::Added => "added",
        }
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
