//! `cargo xtask guest`: what runs in a pod's machine before its containers, the kernel and the initrd.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Error;

mod cpio;
mod fragment;
mod image;
mod kernel;

/// Builds the guest's kernel and image.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Builds the guest kernel, if the cache does not have it, and prints where it is.
    Kernel {
        /// Fragments of guest-kernel-config that are added to those of every guest, in this order.
        #[arg(long = "with", value_name = "FRAGMENT", value_delimiter = ',')]
        fragments: Vec<String>,
    },
    /// Builds the guest image, the initrd with the agent, and prints where it is.
    Image,
}

/// Runs the task.
///
/// # Errors
/// The build's.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let path = match &arguments.part {
        Part::Kernel { fragments } => kernel_with(fragments)?,
        Part::Image => image()?,
    };
    println!("{}", path.display());
    Ok(())
}

/// The fragments that the kernel of every guest has beside the base: one kernel for plain and confidential machines is one
/// kernel to test, to ship and to measure.
const CONFIDENTIAL: [&str; 2] = ["snp", "tdx"];

/// The guest kernel, an ELF file that is not compressed: from the cache, or built now with a progress display of its own.
///
/// # Errors
/// The build's.
pub fn kernel() -> Result<PathBuf, Error> {
    kernel_with(&[])
}

/// The same with more fragments.
fn kernel_with(fragments: &[String]) -> Result<PathBuf, Error> {
    kernel::build(&[&CONFIDENTIAL.map(str::to_owned), fragments].concat())
}

/// A kernel for the test node with KVM's software-protected machines, an ELF file: from the cache, or built now with a
/// progress display of its own.
///
/// # Errors
/// The build's.
pub fn protected_node_kernel() -> Result<PathBuf, Error> {
    let wishes = fragment::parse("protected.config", include_str!("node/protected.config"))?;
    kernel::build_wishes("node-kernel", wishes)
}

/// The guest image: built from the agent as it is now.
///
/// # Errors
/// The build's.
pub fn image() -> Result<PathBuf, Error> {
    image::build()
}
