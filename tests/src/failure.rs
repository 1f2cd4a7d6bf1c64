//! Why a test failed, or could not run.

use std::error::Error;
use std::fmt::Debug;
use std::io;

/// Why a test did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something that the test needs of the machine failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// containerd refused a call.
    #[error("{what} is refused: {:?}: {}", source.code(), source.message())]
    Refused {
        /// The call.
        what: String,
        /// What containerd said.
        source: Box<tonic::Status>,
    },
    /// What was tested is not as it must be.
    #[error("{0}")]
    Wrong(String),
    /// The test can't run on this machine.
    #[error("{0}")]
    CannotRun(String),
}

/// What a test returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The text of a refusal that a test wants.
    ///
    /// # Errors
    /// This failure, if it is none.
    pub fn refusal(self) -> Result<String, Self> {
        match self {
            Self::Refused { .. } => Ok(self.to_string()),
            other => Err(other),
        }
    }

    /// For `map_err`: says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` of errors that are not of this machine's system calls.
    pub fn other<E: Error + Send + Sync + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: io::Error::other(source) }
    }
}

/// Fails with this text.
///
/// # Errors
/// Always.
pub fn wrong<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Wrong(text.into()))
}

/// Fails with the text unless the condition holds.
///
/// # Errors
/// The condition doesn't hold.
pub fn check(condition: bool, text: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { wrong(text()) }
}

/// Fails unless both are the same.
///
/// # Errors
/// They differ.
pub fn equal<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Outcome {
    check(found == wanted, || format!("{what}: found {found:?}, wanted {wanted:?}"))
}

/// Fails unless the text has this part.
///
/// # Errors
/// It hasn't.
pub fn contains(what: &str, text: &str, part: &str) -> Outcome {
    check(text.contains(part), || format!("{what} has no {part:?}: {text:?}"))
}

/// An error with what caused it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
