//! The types of values. Each refuses what is not allowed when it is read, so that holders need no second check.

mod bounded;
mod irqchip;
mod kernel_parameters;
mod log_level;
mod path;
mod policy;
mod quote_service;
mod steps;
mod tee;

pub use bounded::{Count, Kibibytes, Mebibytes, OutOfRange, Seconds};
pub use irqchip::Irqchip;
pub use kernel_parameters::{KernelParameters, KernelParametersError};
pub use log_level::LogLevel;
pub use path::{AbsolutePath, OptionalPath, PathError};
pub use policy::{SnpPolicy, SnpPolicyError};
pub use quote_service::{QuoteService, QuoteServiceError};
pub use steps::{Steps, StepsError};
pub use tee::{HostDataSource, SimulatedPlatform, Tee};
