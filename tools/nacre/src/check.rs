//! `nacre check`: what this host can do.

mod cache;
mod configuration;
mod containerd;
mod files;
mod kernel;
mod kvm;
mod limited;
mod pods;
mod report;
mod snp;
mod tdx;
mod tee;
#[cfg(test)]
mod testing;
mod tools;
mod unsafe_attributes;

use std::path::PathBuf;
use std::process::ExitCode;

pub use containerd::{handlers, runtimes};
use nacre_configuration::{Configuration, Loaded};
use report::{Finding, Report};

/// For the help text.
pub const EXIT_CODES: &str = "\
Exit status:
  0  all that is needed is there
  1  something that is needed is missing
  2  wrong usage";

/// Options of `nacre check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Prints JSON: a list of {group, name, state, needed, found, to_do}
    #[arg(long)]
    json: bool,
    /// containerd's configuration file, if it is started with another one than its default
    #[arg(long, value_name = "PATH")]
    containerd_config: Option<PathBuf>,
}

/// The text to print, and the exit status.
pub fn run(arguments: &Arguments) -> (String, ExitCode) {
    let report = look(arguments);
    let text = if arguments.json { report.json() } else { report.table() };
    (text, if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(arguments: &Arguments) -> Report {
    let loaded = Loaded::load();
    let configuration = configuration::finding(&loaded);
    // With a file that is wrong, the rest is judged by what is built in.
    let Configuration { vmm, guest, vm, confidential, image, .. } =
        loaded.map(|loaded| loaded.configuration).unwrap_or_default();

    let mut report = Report::default();
    report.add("host", [kernel::release(), kvm::finding(), kernel::tun()]);
    report.add("confidential", tee::findings(vm.tee, &confidential));
    report.add("containerd", containerd::findings(arguments.containerd_config.as_deref()));
    report.add(
        "nacre",
        [configuration, files::shim(), files::vmm(&vmm), files::kernel(&guest), files::initrd(&guest)],
    );
    report.add("pods", [pods::cgroups(), pods::network()]);
    report.add("image layers", [tools::mkfs(), cache::finding(&image)]);
    report
}
