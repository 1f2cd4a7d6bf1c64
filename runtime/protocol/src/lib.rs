//! Messages and services of the agent, shared by shim and agent; no I/O.
//!
//! [`agent`], [`oci`], [`types`], [`csi`] and [`health`] are the messages, [`agent_ttrpc`] and [`health_ttrpc`] the
//! async clients and server traits. [`nacre`] is a service that only nacre's agent has. The wire is that of the Kata agent; fields numbered from 100 are nacre's own,
//! which other peers skip. The OCI types of `oci_spec` convert to the messages
//! of [`oci`] and back by `TryFrom` on references.
//!
//! ```
//! use nacre_protocol::agent::WaitProcessRequest;
//! let request = WaitProcessRequest { container_id: "web".into(), ..Default::default() };
//! assert_eq!(request.exec_id, "");
//! ```

mod convert;

pub use convert::ConvertError;

// The generators keep the names of the `.proto` files and their own style.
#[allow(warnings)]
mod generated {
    pub mod agent {
        include!(concat!(env!("OUT_DIR"), "/agent.rs"));
    }
    pub mod agent_ttrpc {
        include!(concat!(env!("OUT_DIR"), "/agent_ttrpc.rs"));
    }
    pub mod csi {
        include!(concat!(env!("OUT_DIR"), "/csi.rs"));
    }
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/health.rs"));
    }
    pub mod health_ttrpc {
        include!(concat!(env!("OUT_DIR"), "/health_ttrpc.rs"));
    }
    pub mod nacre {
        include!(concat!(env!("OUT_DIR"), "/nacre.rs"));
    }
    pub mod nacre_ttrpc {
        include!(concat!(env!("OUT_DIR"), "/nacre_ttrpc.rs"));
    }
    pub mod oci {
        include!(concat!(env!("OUT_DIR"), "/oci.rs"));
    }
    pub mod types {
        include!(concat!(env!("OUT_DIR"), "/types.rs"));
    }
}

pub use generated::{agent, agent_ttrpc, csi, health, health_ttrpc, nacre, nacre_ttrpc, oci, types};
pub use protobuf;
pub use ttrpc;

/// The vsock port on which the agent serves, and on the host's side the port to which it announces itself.
pub const AGENT_PORT: u32 = 1024;

/// The vsock port on which the agent takes stdio streams.
pub const STDIO_PORT: u32 = 1027;

/// The vsock port on which nacre's agent takes connections for TCP services on the pod's localhost. The host sends the
/// service's port as two bytes, most significant first; the agent answers with [`FORWARD_OPEN`] or
/// [`FORWARD_REFUSED`], and what follows are the two streams.
pub const FORWARD_PORT: u32 = 1028;

/// The service takes the connection.
pub const FORWARD_OPEN: u8 = 0;

/// Nobody listens.
pub const FORWARD_REFUSED: u8 = 1;

/// The guest folder under which `CopyFile` writes.
pub const SHARED_FOLDER: &str = "/run/kata-containers/shared/containers";

/// The guest folder with one folder for each container.
pub const CONTAINERS_FOLDER: &str = "/run/kata-containers";
