//! How much is logged.

use crate::schema::Allowed;

/// The least severe messages that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What made a request or a pod fail.
    Error,
    /// What is wrong but did not fail anything.
    Warning,
    /// A pod's life in a few lines.
    Info,
    /// Each request and each step.
    Debug,
}

impl Allowed for LogLevel {
    fn allowed() -> String {
        "\"error\", \"warning\", \"info\" or \"debug\"".into()
    }
}
