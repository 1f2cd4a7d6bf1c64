//! A case, and what it says when it fails.

use std::fmt::{Debug, Display};

use kvm_ioctls::Kvm;

/// Why a case failed.
pub type Failure = String;

/// A case.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Kvm) -> Result<(), Failure>,
}

/// For `map_err`: what was tried, and why it failed.
pub fn said<E: Display>(what: &str) -> impl FnOnce(E) -> Failure {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}

/// Fails unless both are the same.
pub fn equal<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), Failure> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

/// Fails unless the text has this part.
pub fn contains(text: &str, part: &str) -> Result<(), Failure> {
    if text.contains(part) { Ok(()) } else { Err(format!("no {part:?} in {text:?}")) }
}
