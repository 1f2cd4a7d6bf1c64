//! A mutex that a panicking task does not poison for the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. The guard must not live across an await: what it guards are maps and small records.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
