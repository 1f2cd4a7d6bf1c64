//! What the commands about pods have in common.

use std::path::PathBuf;
use std::process::ExitCode;

use nacre_configuration::{Configuration, LoadError};
use nacre_operator::Fault;
use thiserror::Error;

use super::{AskError, FindError, Pod, one};

/// For the help texts.
pub const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  something failed
  2  wrong usage
  3  no such pod, or the name means several
  4  the pod's shim or its guest does not answer
  5  refused: not allowed, or not known to the pod's shim";

/// Where pods are.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The folder of running pods, if it is another one than the configuration's
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
}

/// A pod.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Its id or the beginning of it, or its namespace and name: NAMESPACE/NAME
    pod: String,
    #[command(flatten)]
    place: Place,
}

/// Why a command about a pod failed.
#[derive(Debug, Error)]
pub enum PodError {
    /// The configuration, which names the folder of pods.
    #[error("the configuration is wrong (--state PATH does without)")]
    Configuration(#[from] LoadError),
    /// The pod.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its shim.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The system.
    #[error("{doing} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl PodError {
    /// For [`Result::map_err`].
    pub fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// As [`EXIT_CODES`] says.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Configuration(_) | Self::Io { .. } => 1,
            Self::Find(_) => 3,
            Self::Ask(AskError::NotAllowed | AskError::NoSocket { .. }) => 5,
            Self::Ask(AskError::Refused { fault, .. }) => match fault {
                Fault::Unknown | Fault::Refused => 5,
                Fault::Unavailable => 4,
                Fault::Failed => 1,
            },
            Self::Ask(_) => 4,
        })
    }
}

impl Place {
    /// The folder.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn root(&self) -> Result<PathBuf, PodError> {
        match &self.state {
            Some(path) => Ok(path.clone()),
            None => Ok(Configuration::load()?.state.path.to_path_buf()),
        }
    }
}

impl Wanted {
    /// The pod.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn find(&self) -> Result<Pod, PodError> {
        Ok(one(&self.place.root()?, &self.pod)?)
    }
}
