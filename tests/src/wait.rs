//! Waiting for what nothing announces.
//!
//! A listing of mounts or processes has no event to wait for, so a test looks again until it is as wanted. Nothing
//! under test is built this way.

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// "Within seconds", on a node whose processor is emulated.
pub const SECONDS: Duration = Duration::from_secs(45);

const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` succeeds; its last failure when the time is over.
///
/// # Errors
/// The last failure of `look`.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Err(_) if Instant::now() < end => thread::sleep(PAUSE),
            result => return result,
        }
    }
}
