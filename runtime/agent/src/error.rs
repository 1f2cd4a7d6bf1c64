//! What a call answers when it fails: a ttrpc code and a text with the whole chain of causes.

use std::error::Error;
use std::io;

use nacre_protocol::ttrpc;
use nacre_protocol::ttrpc::Code;

use crate::id::InvalidId;

/// A failed call.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    text: String,
}

/// The result of a call.
pub type Reply<T> = Result<T, Failure>;

impl Failure {
    /// A failure with this code and text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Something named in the call does not exist.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, text)
    }

    /// The call is malformed.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, text)
    }

    /// The call does not fit the present state.
    pub fn precondition(text: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, text)
    }

    /// Something did not happen in time.
    pub fn deadline(text: impl Into<String>) -> Self {
        Self::new(Code::DEADLINE_EXCEEDED, text)
    }

    /// Anything else, with the chain of causes.
    pub fn internal(doing: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(Code::INTERNAL, format!("{doing}: {}", chain(error)))
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(failure.code, failure.text))
    }
}

impl From<InvalidId> for Failure {
    fn from(error: InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<nacre_protocol::ConvertError> for Failure {
    fn from(error: nacre_protocol::ConvertError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// Adds what was being done to an error, which makes it a failed call.
pub trait Doing<T> {
    /// Says what was being done.
    fn doing(self, what: &str) -> Reply<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: &str) -> Reply<T> {
        self.map_err(|error| Failure::internal(what, &error))
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing(self, what: &str) -> Reply<T> {
        self.map_err(|error| Failure::internal(what, &error))
    }
}

/// The text of an error and of everything that caused it.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
