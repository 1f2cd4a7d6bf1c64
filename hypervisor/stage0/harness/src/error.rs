//! Why a case can't run or fails.

use std::io;

use nix::errno::Errno;

/// Why a case can't run or fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// stage0's image or a process.
    #[error("{what}")]
    File {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The image can't be used.
    #[error("stage0's image: {0}")]
    Image(String),
    /// KVM refuses something.
    #[error("{what}: {source}")]
    Kvm {
        /// The request.
        what: &'static str,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// KVM refuses a memory slot.
    #[error("slot {slot} of {len:#x} bytes at {gpa:#x}: {source}")]
    Slot {
        /// Its number.
        slot: u32,
        /// Where.
        gpa: u64,
        /// How much.
        len: u64,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// Memory of the harness.
    #[error("memory can't be mapped or protected")]
    Memory(#[source] Errno),
    /// The case's own pages are impossible.
    #[error("the case's pages: {0}")]
    Pages(String),
    /// Not what must be.
    #[error("{0}")]
    Wrong(String),
}

impl Error {
    /// The error and what caused it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

/// For `map_err` of a request to KVM.
pub fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

/// `Err` unless a condition holds.
pub fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Wrong(otherwise())) }
}
