//! What the agent is told by the kernel's command line or its environment.

use nacre_protocol::AGENT_PORT;
use slog::Level;

use crate::log;

/// The variable that names the address to serve.
pub const ADDRESS_VARIABLE: &str = "KATA_AGENT_SERVER_ADDR";

/// The variable that sets the level of the log.
pub const LEVEL_VARIABLE: &str = "KATA_AGENT_LOG_LEVEL";

/// Settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to listen.
    pub address: String,
    /// Whether to connect to the host when ready.
    pub announce: bool,
    /// Whether the host may connect to services on localhost.
    pub forward: bool,
    /// Whether the machine is the agent's own, to be set up for a pod.
    pub own_machine: bool,
    /// What to log.
    pub level: Level,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: format!("vsock://-1:{AGENT_PORT}"),
            announce: true,
            forward: true,
            own_machine: true,
            level: Level::Info,
        }
    }
}

impl Options {
    /// Reads `agent.` parameters; those it does not know and values that make no sense are left alone, since a guest
    /// that does not start helps nobody.
    pub fn from_command_line(line: &str) -> Self {
        let mut options = Self::default();
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "agent.log" => options.level = log::level(value).unwrap_or(options.level),
                "agent.announce" => options.announce = !matches!(value, "0" | "false"),
                "agent.forward" => options.forward = !matches!(value, "0" | "false"),
                "agent.server_addr" if !value.is_empty() => options.address = value.to_owned(),
                _ => {}
            }
        }
        options
    }

    /// Settings without a VM.
    pub fn from_environment(address: String, level: Option<&str>) -> Self {
        let level = level.and_then(log::level).unwrap_or(Level::Info);
        Self { address, announce: false, forward: false, own_machine: false, level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_sets_what_it_names() {
        let line =
            "console=hvc0 agent.log=debug quiet agent.announce=0 agent.server_addr=vsock://-1:2000 agent.x=y";
        let expected = Options {
            address: "vsock://-1:2000".into(),
            announce: false,
            forward: true,
            own_machine: true,
            level: Level::Debug,
        };
        assert_eq!(Options::from_command_line(line), expected);
        assert_eq!(Options::from_command_line("agent.log=loud"), Options::default());
    }
}
