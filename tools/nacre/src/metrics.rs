//! `nacre metrics`: the node's numbers in Prometheus' text format.
//!
//! One process serves all pods of the node. It looks when it is asked and not in between. What survives a pod: its
//! launch, by the file of timelines, and the calls to its agent up to the last look.

mod collect;
mod exposition;
mod launches;
mod serve;

use std::path::PathBuf;

use nacre_configuration::{Configuration, LoadError};
use thiserror::Error;

use collect::Collector;

/// Options of `nacre metrics`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Prints the numbers once and ends
    #[arg(long)]
    once: bool,
    /// Serves on this unix socket instead of operator.metrics_socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Serves on this port of 127.0.0.1 as well, instead of operator.metrics_port; 0 for none
    #[arg(long)]
    port: Option<u16>,
}

/// Why there are no numbers.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The configuration.
    #[error("the configuration is wrong")]
    Configuration(#[from] LoadError),
    /// The socket.
    #[error("can't serve on {place}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process serves there.
    #[error("another `nacre metrics` serves on {} already", path.display())]
    Served {
        /// Where.
        path: PathBuf,
    },
}

/// Prints or serves.
///
/// # Errors
/// See [`MetricsError`].
pub fn run(arguments: &Arguments) -> Result<String, MetricsError> {
    let configuration = Configuration::load()?;
    let collector = Collector::new(&configuration.state.path, &configuration.log.timeline_path);
    if arguments.once {
        return Ok(collector.text());
    }
    let operator = &configuration.operator;
    let socket = arguments.socket.clone().unwrap_or_else(|| operator.metrics_socket.to_path_buf());
    let configured = u16::try_from(operator.metrics_port.get()).unwrap_or(0);
    let port = arguments.port.unwrap_or(configured);
    serve::serve(&collector, &socket, (port != 0).then_some(port))?;
    Ok(String::new())
}
