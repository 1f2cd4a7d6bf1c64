//! Requests to a shim, and its replies.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::VERSION;

/// One request: the only line that the command sends on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What a shim can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// [`crate::Status`]. The guest is not asked.
    Status,
    /// [`AgentInfo`], from the guest's agent.
    Agent,
    /// The shim's messages about the pod, as [`Chunk`]s of JSON lines.
    Log {
        /// Waits for more instead of ending.
        follow: bool,
    },
    /// The guest kernel's messages, from the guest's agent, as [`Chunk`]s.
    Kernel {
        /// Waits for more instead of ending.
        follow: bool,
    },
    /// The last that the guest printed on its console, from the VMM, as one [`Chunk`]. Works with a guest that hangs.
    Console,
    /// [`Report`], from the guest's agent: an attestation report with these data in it.
    Report {
        /// 64 bytes as hexadecimal digits.
        data: String,
    },
    /// Starts a shell in a container, on fifos of the asker; replies with the exit status when it has ended.
    Shell {
        /// The container; the only one that runs if there is none.
        container: Option<String>,
        /// The program and its arguments.
        command: Vec<String>,
        /// The fifo that it reads.
        stdin: String,
        /// The fifo that it writes.
        stdout: String,
        /// The terminal's. Another [`TerminalSize`] on a line of its own changes it.
        size: TerminalSize,
    },
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u32,
    /// Characters in a line.
    pub columns: u32,
}

/// The end of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShellEnd {
    /// Its exit status, with 128 added to a signal.
    pub exit_status: u32,
}

/// Text that is part of a longer one. It may come from the guest: whoever shows it makes it harmless first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Chunk {
    /// The text.
    pub text: String,
}

/// What the agent says about itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// The guest's numbers in Prometheus' text format.
    pub metrics: String,
}

/// An attestation report. It comes from the guest: whoever trusts it has checked it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Who signs, in the guest's words.
    pub provider: String,
    /// The report as hexadecimal digits.
    pub report: String,
    /// The host's certificates for it as hexadecimal digits; often none.
    pub certificates: String,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// What was asked for.
    Ok(T),
    /// Why there is none.
    Error {
        /// What kind of reason.
        fault: Fault,
        /// The reason in words.
        message: String,
    },
}

/// A kind of reason for a call to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The shim does not know the call: it is of another version.
    Unknown,
    /// The pod, or its configuration, does not allow it.
    Refused,
    /// The pod has no running VM, or its guest does not answer.
    Unavailable,
    /// Anything else, also a kind that this version does not know.
    #[serde(other)]
    Failed,
}

/// A line that is not of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("a line can't be read as a message between nacre and a shim")]
pub struct Unreadable(#[from] serde_json::Error);

impl Request {
    /// A request of this version.
    #[must_use]
    pub const fn new(call: Call) -> Self {
        Self { version: VERSION, call }
    }

    /// The request as it is sent.
    #[must_use]
    pub fn line(&self) -> String {
        // All keys are strings and no value can fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no request, or one of a version that knows more.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        Ok(serde_json::from_str(line)?)
    }
}

impl<T: Serialize + DeserializeOwned> Reply<T> {
    /// The reply as it is sent.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no reply.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        Ok(serde_json::from_str(line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Phase, Status};

    #[test]
    fn a_newer_peer_may_say_more() {
        let line = r#"{"version":2,"call":"log","follow":true,"colour":"red"}"#;
        assert_eq!(Request::read(line).unwrap().call, Call::Log { follow: true });
        let line = r#"{"ok":{"phase":"asleep","mood":1}}"#;
        assert_eq!(Reply::<Status>::read(line).unwrap(), Reply::Ok(Status::default()));
        assert_eq!(Status::default().phase, Phase::Unknown);
        let line = r#"{"error":{"fault":"tired","message":"later"}}"#;
        let reply = Reply::<Status>::read(line).unwrap();
        assert_eq!(reply, Reply::Error { fault: Fault::Failed, message: "later".into() });
    }

    #[test]
    fn an_unknown_call_is_no_request() {
        assert!(Request::read(r#"{"version":2,"call":"dance"}"#).is_err());
        assert!(Request::read("").is_err());
    }

    #[test]
    fn every_call_survives_its_line() {
        let shell = Call::Shell {
            container: None,
            command: vec!["/bin/sh".into()],
            stdin: "/i".into(),
            stdout: "/o".into(),
            size: TerminalSize { rows: 24, columns: 80 },
        };
        for call in [Call::Status, Call::Agent, Call::Kernel { follow: false }, Call::Console, shell] {
            assert_eq!(Request::read(&Request::new(call.clone()).line()).unwrap().call, call);
        }
    }
}
