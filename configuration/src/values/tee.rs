//! The technology that keeps a pod's machine from its host, and where its host data comes from.

use crate::schema::Allowed;

/// The technology of a pod's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// None: a virtual machine whose memory the host can read.
    None,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A software model, for machines without the hardware. It is never confidential.
    Simulated,
}

impl Tee {
    /// As in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Simulated => "simulated",
        }
    }
}

impl std::fmt::Display for Tee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Allowed for Tee {
    fn allowed() -> String {
        "\"none\", \"snp\", \"tdx\" or \"simulated\"".into()
    }
}

/// What the simulated platform is a model of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SimulatedPlatform {
    /// AMD SEV-SNP: a software security processor, and its reports.
    Snp,
    /// Intel TDX: a software TDX module, and quotes of its reports.
    Tdx,
}

impl Allowed for SimulatedPlatform {
    fn allowed() -> String {
        "\"snp\" or \"tdx\"".into()
    }
}

/// Where the 32 bytes come from that are in a guest's reports and not in its measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostDataSource {
    /// They are zero.
    None,
    /// The pod's annotation `io.nacre.host-data`, 64 hexadecimal digits; zero without it.
    Annotation,
}

impl Allowed for HostDataSource {
    fn allowed() -> String {
        "\"none\" or \"annotation\"".into()
    }
}
