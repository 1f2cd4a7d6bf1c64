//! What changes while a pod lives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A pod, as its shim sees it now. Nobody in the guest is asked for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The shim's version.
    pub version: String,
    /// Where the VM is in its life.
    pub phase: Phase,
    /// Why the VM ended, if it did.
    pub end: Option<String>,
    /// The containers, the sandbox's own first.
    pub containers: Vec<Container>,
    /// The moments T0 to T12 of the launch as far as they are reached, in nanoseconds of `CLOCK_MONOTONIC`.
    pub moments: BTreeMap<String, u64>,
    /// Calls to the guest's agent, by their names.
    pub calls: BTreeMap<String, CallCount>,
    /// The last warnings and errors, the oldest first.
    pub errors: Vec<Message>,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its agent is not there yet.
    Starting,
    /// Its agent is there.
    Running,
    /// It ended.
    Stopped,
    /// Something that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// `sandbox`, `member` or `lone`.
    pub role: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub state: String,
    /// Its init process's exit status, once it has ended.
    pub exit_status: Option<u32>,
}

/// How often the guest's agent was called, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CallCount {
    /// All calls that are answered.
    pub count: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The time until their answers, summed up.
    pub seconds: f64,
}

/// A message of the shim's log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// RFC 3339.
    #[serde(rename = "ts")]
    pub time: String,
    /// `INFO`, `WARN`, …
    pub level: String,
    /// What happened.
    #[serde(rename = "msg")]
    pub text: String,
    /// The message's keys.
    #[serde(flatten)]
    pub keys: BTreeMap<String, serde_json::Value>,
}
