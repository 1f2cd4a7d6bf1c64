//! What is in a confidential guest's memory before its first instruction, how it is measured, and what the
//! measurement is.
//!
//! One value, the [`LaunchPlan`], says all of it: the VMM carries it out, `nacre measure` computes from it, and
//! tests compare both with other people's calculators. It has no access to a processor; that is the VMM's part.
//!
//! - [`Guest`] is a guest as the configuration describes it, and makes its plan: the VMM and `nacre measure` call
//!   the same function.
//! - [`GuestImages`] are kernel, initrd and command line: where they will be, and their hashes. They are not
//!   measured by the security processor; stage0 checks them against a measured page.
//! - [`LaunchPlan`] adds stage0, the machine's parameters and the CPUs' first states.
//! - [`LaunchDigest`] computes what the SEV-SNP firmware computes, [`Mrtd`] what a TDX module computes.
//! - [`IdBlock`] and [`IdAuthentication`] bind a launch to the keys of whoever vouches for it.
//! - [`dump`] writes a plan to files, for tools that are not ours.
//!
//! ```
//! use nacre_launch::{CpuState, LaunchDigest, PageKind};
//!
//! let mut digest = LaunchDigest::new();
//! digest.add_page(0x1000, PageKind::Normal, &[0; 4096]);
//! let measurement = digest.into_cpus().add_cpu(&CpuState::stage0_snp(0)).finish();
//! assert_eq!(measurement.to_string().len(), 96);
//! ```

#![deny(clippy::indexing_slicing)]

pub mod abi;
pub mod command_line;
mod cpu_state;
pub mod devices;
mod digest;
pub mod dump;
mod guest;
mod id_block;
mod images;
mod mrtd;
mod parts;
mod plan;
mod policy;
mod vcpus;

pub use cpu_state::{CpuState, DescriptorTable, GeneralRegisters, Segment};
pub use digest::{CpuDigest, LaunchDigest, Measurement};
pub use guest::{Guest, GuestError, GuestFiles, Tee};
pub use id_block::{IdAuthentication, IdBlock, IdBlockError, IdKey, KeyDigest, PublicKey, SignedIdBlock};
pub use images::{
    GuestImages, ImageSource, ImagesError, Kernel, KernelError, KnownHashes, Sha256Hash, SharedRange,
};
pub use mrtd::{Mrtd, RuntimeMeasurements};
pub use parts::{Part, PartKind};
pub use plan::{
    HostData, LaunchPlan, Limits, Machine, Measurer, PageKind, PageRange, PlanError, Stage0Error,
    Stage0Image, TDX_SHARED_BIT, memory_of,
};
pub use policy::{Policy, PolicyError};
pub use vcpus::{VcpuCounts, VcpusError};
