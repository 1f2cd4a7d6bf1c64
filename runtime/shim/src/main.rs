//! The containerd shim: one process for each pod.
//!
//! containerd starts it with `start`, gets an address, and speaks its Task API there ([`service`]). The pod
//! ([`pod`]) has one virtual machine ([`machine`]): a VMM as a child process ([`vmm`]) and the agent in its guest
//! ([`agent`]). Containers ([`container`]) and their processes ([`process`]) live in the guest; their streams
//! ([`stdio`]) and ends ([`events`]) reach containerd from here. After a shim that was killed containerd calls
//! `delete` ([`cleanup`]).
//!
//! It is no VMM and links none, and it changes no image: layers come from `nacre_image`.

mod agent;
mod annotations;
mod caller;
mod cleanup;
mod container;
mod error;
mod events;
mod host_cgroup;
mod id;
mod inherit;
mod layers;
mod logger;
mod machine;
mod network;
mod operator;
mod pidfd;
mod pod;
mod process;
mod recent;
mod serve;
mod service;
mod size;
mod spec;
mod start;
mod state;
mod stats;
mod stdio;
#[cfg(test)]
mod testing;
mod timeline;
mod vmm;
mod volumes;
mod vsock;
mod watched;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

const NAME: &str = "io.containerd.nacre.v2";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {}", error::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let flags = containerd_shim::parse(&arguments)?;
    if flags.version {
        println!("{NAME} {VERSION}");
        return Ok(());
    }
    if flags.info {
        let version = RuntimeVersion { version: VERSION.into(), ..Default::default() };
        let info = RuntimeInfo { name: NAME.into(), version: Some(version).into(), ..Default::default() };
        return Ok(std::io::stdout().write_all(&info.write_to_bytes()?)?);
    }
    match flags.action.as_str() {
        "start" => Ok(start::run(&flags)?),
        "delete" => Ok(cleanup::run(&flags)?),
        _ => Ok(serve::run(&flags)?),
    }
}
