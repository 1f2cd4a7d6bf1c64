//! What a request of containerd's can fail with, and the code that containerd gets.

use std::error::Error as StdError;
use std::fmt::Write as _;

use ttrpc::Code;

use crate::agent::AgentError;
use crate::layers::LayersError;
use crate::network::NetworkError;
use crate::spec::SpecError;
use crate::state::StateError;
use crate::stdio::StdioError;
use crate::vmm::VmmError;
use crate::volumes::VolumeError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No such container.
    #[error("container {0} does not exist")]
    NoContainer(String),
    /// No such process of a container that exists.
    #[error("process {exec} of container {container} does not exist")]
    NoProcess {
        /// The container.
        container: String,
        /// The process.
        exec: String,
    },
    /// Nobody waits for the container any more.
    #[error("containerd gave up waiting for container {0}, which is undone")]
    Abandoned(String),
    /// The name is taken.
    #[error("{what} {id} exists already")]
    Exists {
        /// "container" or "process".
        what: &'static str,
        /// Its name.
        id: String,
    },
    /// Right request, wrong time.
    #[error("{id} is {is}, which does not allow to {wanted} it")]
    WrongState {
        /// Of which container or process.
        id: String,
        /// Its state.
        is: &'static str,
        /// The operation.
        wanted: &'static str,
    },
    /// Not a name that can stand in a path.
    #[error("{0:?} is not a valid name")]
    BadId(String),
    /// A message inside the request can't be read.
    #[error("the {0} in the request can't be read")]
    BadPayload(&'static str, #[source] serde_json::Error),
    /// The bundle's config.json can't be read.
    #[error("{path} can't be read")]
    BadBundle {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// Something this runtime has not.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The process has ended already.
    #[error("process of {0} has finished already")]
    Finished(String),
    /// The sandbox has no VM (any more).
    #[error("sandbox {0} has no running virtual machine")]
    NoMachine(String),
    /// The node's configuration is wrong: the whole message.
    #[error("the configuration is wrong: {0}")]
    Configuration(String),
    /// The OCI spec asks for what can't be given.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The image's layers can't be brought into the VM.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// A bind mount's source can't be brought into the guest.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Stdin, stdout or stderr can't be joined.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The virtual machine.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The guest's agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The pod's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The pod's folder.
    #[error(transparent)]
    State(#[from] StateError),
}

impl TaskError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::NoContainer(_) | Self::NoProcess { .. } | Self::Finished(_) => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::WrongState { .. } | Self::Configuration(_) | Self::NoMachine(_) => {
                Code::FAILED_PRECONDITION
            }
            Self::BadId(_) | Self::BadPayload(..) | Self::BadBundle { .. } => Code::INVALID_ARGUMENT,
            Self::Abandoned(_) => Code::DEADLINE_EXCEEDED,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Spec(error) => error.code(),
            Self::Volume(error) => error.code(),
            Self::Stdio(error) => error.code(),
            Self::Vmm(error) => error.code(),
            Self::Agent(error) => error.code(),
            Self::Layers(error) => error.code(),
            Self::Network(
                NetworkError::HostNamespace(_) | NetworkError::TooMany(_) | NetworkError::NotEthernet(_),
            ) => Code::UNIMPLEMENTED,
            Self::Network(_) | Self::State(_) => Code::INTERNAL,
        }
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing into a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(error.code(), chain(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_gets_the_code_of_the_type_and_the_whole_chain() {
        let error = serde_json::from_str::<u8>("x").unwrap_err();
        let ttrpc::Error::RpcStatus(status) = TaskError::BadPayload("process", error).into() else {
            panic!("not a status");
        };
        assert_eq!(status.code(), Code::INVALID_ARGUMENT);
        assert!(status.message.starts_with("the process in the request can't be read: expected value"));
    }
}
