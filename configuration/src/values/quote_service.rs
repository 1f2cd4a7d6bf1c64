//! Where a host's quoting service is.

use std::fmt;

use super::{AbsolutePath, PathError};
use crate::schema::Allowed;

/// Where the service is that makes quotes of a TDX guest's reports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum QuoteService {
    /// A unix socket.
    Unix(AbsolutePath),
    /// An address on the virtual socket.
    Vsock {
        /// The context.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// A text that names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteServiceError {
    /// Neither of the two forms.
    #[error(
        "must be \"unix:\" and a path, or \"vsock:\", a context and a port, as in \"vsock:2:4050\", not {0:?}"
    )]
    Form(String),
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl QuoteService {
    /// For the default, which a test checks.
    pub(crate) fn known(path: &str) -> Self {
        Self::Unix(AbsolutePath::known(path))
    }
}

impl TryFrom<String> for QuoteService {
    type Error = QuoteServiceError;

    fn try_from(text: String) -> Result<Self, QuoteServiceError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.to_owned().try_into()?));
        }
        let address = text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':'));
        let numbers = address.and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
        numbers.map(|(cid, port)| Self::Vsock { cid, port }).ok_or(QuoteServiceError::Form(text))
    }
}

impl From<QuoteService> for String {
    fn from(service: QuoteService) -> Self {
        service.to_string()
    }
}

impl fmt::Display for QuoteService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Vsock { cid, port } => write!(formatter, "vsock:{cid}:{port}"),
        }
    }
}

impl Allowed for QuoteService {
    fn allowed() -> String {
        "\"unix:\" and a path, or \"vsock:CONTEXT:PORT\"".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_as_they_are_written() {
        for text in ["unix:/run/qgs.socket", "vsock:2:4050"] {
            assert_eq!(QuoteService::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in
            ["", "/run/qgs.socket", "unix:qgs", "vsock:2", "vsock:2:x", "vsock:2:4050:1", "vsock:-1:1"]
        {
            assert!(QuoteService::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
