//! What the operator's command `nacre` and a pod's shim say to each other; types, no I/O.
//!
//! A pod's folder holds [`ABOUT_FILE`], an [`About`]: all that does not change, readable without the shim. In the same
//! folder the shim listens on [`SOCKET_FILE`]. A peer sends one [`Request`], a line of JSON, and gets [`Reply`] lines:
//! one, or many for calls that follow something; closing the connection ends the call. Only root may ask.
//!
//! Command and shim may be of different versions: fields that are not known are skipped, fields that are missing have
//! their defaults, and a call that a shim does not know is answered with [`Fault::Unknown`].
//!
//! ```
//! use nacre_operator::{Call, Request};
//! assert_eq!(Request::new(Call::Status).line(), "{\"version\":1,\"call\":\"status\"}\n");
//! ```

mod about;
mod call;
pub mod digits;
mod status;

pub use about::{About, Device, KubernetesName, Size};
pub use call::{AgentInfo, Call, Chunk, Fault, Reply, Report, Request, ShellEnd, TerminalSize, Unreadable};
pub use status::{CallCount, Container, Message, Phase, Status};

/// The version of the requests that this crate knows.
pub const VERSION: u32 = 1;

/// The shim's socket for operators in a pod's folder. No longer than the name of the VMM's socket there, for which
/// the folder's path leaves room.
pub const SOCKET_FILE: &str = "query.sock";

/// The file in a pod's folder with its [`About`].
pub const ABOUT_FILE: &str = "about.json";

/// The longest line in either direction, in bytes. What a guest says is cut to fit.
pub const LONGEST_LINE: usize = 1 << 20;
