//! Queues: what a driver configures, and what a device works with.

mod active;
mod config;

pub(crate) use active::ActiveQueue;
pub(crate) use config::{Half, Part, QueueConfig, activate};

#[cfg(test)]
mod tests;
