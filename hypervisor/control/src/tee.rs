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
    /// Where hashes of kernel and initrd are remembered from one start to the next; `None` computes them every time.
    pub hashes: Option<HashFiles>,
}

/// What remembers hashes: for each file one, open for reading and writing, and empty the first time. The VMM reads, may write
/// and closes them before the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashFiles {
    /// Of the kernel.
    pub kernel: FileIndex,
    /// Of the initrd.
    pub initrd: FileIndex,
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
        /// A table of certificates for the guest's reports, as the GHCB specification has it, if there is one.
        certificates: Option<FileIndex>,
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
