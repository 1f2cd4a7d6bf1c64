//! How a machine starts whose first bytes are measured.

use serde::{Deserialize, Serialize};

use crate::FileIndex;

/// A machine that starts by a launch plan: stage0 first, which checks kernel, initrd and command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeeConfig {
    /// Who measures.
    pub platform: TeePlatform,
    /// stage0's flat image.
    pub stage0: FileIndex,
    /// The guest's policy, as SEV-SNP has it.
    pub policy: u64,
    /// In the guest's reports, not in its measurement.
    pub host_data: [u8; 32],
    /// What the guest's owner signed, if anything.
    pub id_block: Option<IdBlockFiles>,
}

/// The two files of an ID block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdBlockFiles {
    /// 96 bytes.
    pub block: FileIndex,
    /// 4096 bytes.
    pub authentication: FileIndex,
}

/// Who measures a machine and keeps its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TeePlatform {
    /// The VMM itself, with a software model. Not confidential.
    Simulated {
        /// What it models.
        tee: SimulatedTee,
        /// The key with which it signs reports, as PEM, and for quotes the key's certificates behind it; without it there
        /// are none.
        key: Option<FileIndex>,
    },
    /// AMD SEV-SNP.
    Snp {
        /// The opened `/dev/sev`; `None` where the host has none, which the VMM names among what else is missing.
        sev: Option<FileIndex>,
    },
    /// Intel TDX.
    Tdx {
        /// Who makes quotes; `None` where the host has nobody.
        quotes: Option<QuoteService>,
    },
}

/// What the simulated platform models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimulatedTee {
    /// The security processor of AMD SEV-SNP.
    Snp,
    /// The module of Intel TDX.
    Tdx,
}

/// Where the host's quoting service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum QuoteService {
    /// Its unix socket, opened as a path (`O_PATH`).
    Socket(FileIndex),
    /// An address on the virtual socket.
    Vsock {
        /// The context.
        cid: u32,
        /// The port.
        port: u32,
    },
}

impl TeePlatform {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simulated { .. } => "simulated",
            Self::Snp { .. } => "snp",
            Self::Tdx { .. } => "tdx",
        }
    }
}
