//! The steps of a launch that all kinds of confidential machine have. Who launches one puts them in order.

use std::fmt::Display;

use super::PrivateRegion;

/// The machine is a guest of its kind without memory.
#[derive(Debug)]
pub struct Initialised;

/// It has memory, all of it private.
#[derive(Debug)]
pub struct WithMemory {
    /// The ranges of memory.
    pub regions: Vec<PrivateRegion>,
}

/// It has all its CPUs.
#[derive(Debug)]
pub struct WithCpus<C> {
    /// The ranges of memory.
    pub regions: Vec<PrivateRegion>,
    /// The CPUs in their order.
    pub cpus: Vec<C>,
}

/// Its pages are taken, and measured as far as they are to be.
#[derive(Debug)]
pub struct Measured<C> {
    /// The ranges of memory.
    pub regions: Vec<PrivateRegion>,
    /// The CPUs in their order.
    pub cpus: Vec<C>,
}

/// A signal, busy firmware or a busy module may interrupt a command: more often is no accident.
pub const MOST_RETRIES: u32 = 100;

/// Why a command failed.
pub trait Transient {
    /// Whether to try again.
    fn is_transient(&self) -> bool;
}

/// Repeats a command as long as what it fails by is transient, but not for ever.
///
/// # Errors
/// The last one.
pub fn retry<E: Transient>(mut command: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    for _ in 0..MOST_RETRIES {
        match command() {
            Err(error) if error.is_transient() => {}
            other => return other,
        }
    }
    command()
}

/// What a host lacks or its firmware refuses, for an error's text.
pub fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
