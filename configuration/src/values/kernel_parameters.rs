//! Parameters for the guest kernel.

use crate::schema::Allowed;

/// The most bytes of [`KernelParameters`]: the kernel's command line has 2048 (`COMMAND_LINE_SIZE` of x86), and
/// devices need their share of it.
const MAX_BYTES: usize = 1024;

/// Words for the end of the guest kernel's command line: printable ASCII, at most 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelParameters(String);

/// Parameters that cannot be on a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelParametersError {
    /// Too many bytes.
    #[error("must be at most {MAX_BYTES} bytes, not {0}")]
    Long(usize),
    /// A line break or something else that is not printable ASCII.
    #[error("must be printable ASCII, without {0:?}")]
    Character(char),
}

impl KernelParameters {
    /// The words, separated by spaces; may be empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KernelParameters {
    type Error = KernelParametersError;

    fn try_from(text: String) -> Result<Self, KernelParametersError> {
        if text.len() > MAX_BYTES {
            return Err(KernelParametersError::Long(text.len()));
        }
        match text.chars().find(|c| *c != ' ' && !c.is_ascii_graphic()) {
            Some(character) => Err(KernelParametersError::Character(character)),
            None => Ok(Self(text)),
        }
    }
}

impl From<KernelParameters> for String {
    fn from(parameters: KernelParameters) -> String {
        parameters.0
    }
}

impl Allowed for KernelParameters {
    fn allowed() -> String {
        format!("printable ASCII, at most {MAX_BYTES} bytes")
    }
}
