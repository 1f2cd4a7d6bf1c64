//! For operators: what `nacre` says about pods.

use crate::cases::Test;

pub const TESTS: &[Test] = &[];
