//! The types of values. Each refuses what is not allowed when it is read, so that holders need no second check.

mod bounded;
mod kernel_parameters;
mod log_level;
mod path;

pub use bounded::{Count, Kibibytes, Mebibytes, OutOfRange, Seconds};
pub use kernel_parameters::{KernelParameters, KernelParametersError};
pub use log_level::LogLevel;
pub use path::{AbsolutePath, PathError};
