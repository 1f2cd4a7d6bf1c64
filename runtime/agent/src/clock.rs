//! The guest's clock.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::error::{Doing, Failure, Reply};

const NANOSECONDS: i64 = 1000;

/// Sets the time, in seconds and microseconds since 1970.
pub fn set(seconds: i64, microseconds: i64) -> Reply<()> {
    if seconds < 0 || !(0..1_000_000).contains(&microseconds) {
        return Err(Failure::invalid("a time before 1970 or with a wrong fraction"));
    }
    let time = TimeSpec::new(seconds, microseconds * NANOSECONDS);
    clock_settime(ClockId::CLOCK_REALTIME, time).doing("set the clock")
}
