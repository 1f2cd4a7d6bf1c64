//! Attestation reports: from the kernel where the guest is confidential, from the VMM where it is simulated.

mod simulated;
mod tsm;

use std::path::{Path, PathBuf};

use crate::error::{Failure, Reply};

/// What a report has of the one who asks for it.
pub type ReportData = [u8; 64];

/// A report, and who signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The kernel's word for the platform, or one that says that it is simulated.
    pub provider: String,
    /// In the platform's format.
    pub bytes: Vec<u8>,
    /// The host's certificates for it, in the platform's format; often none.
    pub certificates: Vec<u8>,
}

/// Where reports come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The kernel's interface, for all platforms alike (Documentation/ABI/testing/configfs-tsm-report).
    Tsm(PathBuf),
    /// The VMM's software security processor, over vsock.
    Simulated,
}

impl Source {
    /// The kernel's, if it has one. Otherwise only a VMM that simulates can have reports.
    pub fn find() -> Self {
        tsm::find().map_or(Self::Simulated, Self::Tsm)
    }

    /// A fresh report with these data in it.
    pub async fn report(self, data: ReportData) -> Reply<Report> {
        match self {
            Self::Tsm(folder) => blocking(folder, data).await,
            Self::Simulated => simulated::over_vsock(&data).await,
        }
    }
}

/// The data of a request.
pub fn report_data(bytes: &[u8]) -> Reply<ReportData> {
    bytes.try_into().map_err(|_| Failure::invalid(format!("report data has 64 bytes, not {}", bytes.len())))
}

/// The kernel may wait for the security processor.
async fn blocking(folder: PathBuf, data: ReportData) -> Reply<Report> {
    let ask = move || tsm::report(Path::new(&folder), &data);
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.unwrap_or_else(|error| Err(Failure::internal("GetReport", &error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_data_is_64_bytes() {
        assert_eq!(report_data(&[7; 64]).unwrap(), [7; 64]);
        for wrong in [0, 63, 65] {
            let failure = report_data(&vec![0; wrong]).unwrap_err();
            assert!(failure.text().contains("64 bytes"), "{}", failure.text());
        }
    }
}
