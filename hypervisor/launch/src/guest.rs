//! From a guest's files and size to its plan.

use thiserror::Error;

use crate::images::{GuestImages, ImagesError, KnownHashes};
use crate::mrtd::RuntimeMeasurements;
use crate::plan::{LaunchPlan, Machine, PlanError, Stage0Error, Stage0Image, memory_of};
use crate::policy::Policy;
use crate::{command_line, devices};

/// The technologies whose guests start by a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A guest without confidential memory that starts in the same way. What it is shows in its measurement: stage0 is
    /// told so by a measured register.
    Simulated,
    /// The same, with a software TDX module instead of a software security processor: it measures pages only, and its
    /// registers are extended by stage0.
    SimulatedTdx,
}

/// What a guest starts from, as it is in files, and its part of the command line.
#[derive(Debug, Clone, Copy)]
pub struct GuestFiles<'a> {
    /// stage0's flat image.
    pub stage0: &'a [u8],
    /// The kernel's ELF file.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
    /// What the configuration and the shim append to the kernel command line.
    pub kernel_parameters: &'a str,
    /// Hashes of kernel and initrd that need not be computed.
    pub known: KnownHashes<'a>,
}

/// Guests of one version: all that is the same whatever their size. Making one hashes the files whose hashes are not known.
#[derive(Debug, Clone)]
pub struct Guest {
    tee: Tee,
    stage0: Stage0Image,
    images: GuestImages,
}

impl Guest {
    /// Reads and hashes the files.
    ///
    /// # Errors
    /// A file is not what it should be.
    pub fn new(tee: Tee, files: &GuestFiles<'_>) -> Result<Self, GuestError> {
        let stage0 = Stage0Image::new(files.stage0.to_vec())?;
        let line = match tee {
            Tee::Snp | Tee::Tdx => command_line::with_acpi(files.kernel_parameters),
            Tee::Simulated | Tee::SimulatedTdx => command_line::confidential(files.kernel_parameters),
        };
        if line.len() > command_line::MAX {
            return Err(GuestError::CommandLine(line.len()));
        }
        let images = GuestImages::with_known(files.kernel, files.initrd, &line, files.known)?;
        Ok(Self { tee, stage0, images })
    }

    /// The plan of a guest with this many vCPUs and this much memory in MiB.
    ///
    /// # Errors
    /// The size is impossible, or too small for the files.
    pub fn plan(&self, vcpus: u32, memory_mib: u32, policy: Policy) -> Result<LaunchPlan, GuestError> {
        let memory = memory_of(u64::from(memory_mib) << 20).map_err(GuestError::Memory)?;
        let first_interrupt = devices::FIRST_INTERRUPT;
        let machine = Machine { vcpus, memory, first_interrupt, interrupts: devices::MOST };
        let (stage0, images) = (&self.stage0, &self.images);
        let plan = match self.tee {
            Tee::Snp => LaunchPlan::snp(stage0, images, &machine, policy),
            Tee::Tdx => LaunchPlan::tdx(stage0, images, &machine),
            Tee::Simulated => LaunchPlan::plain(stage0, images, &machine, policy),
            Tee::SimulatedTdx => LaunchPlan::simulated_tdx(stage0, images, &machine),
        };
        Ok(plan?)
    }

    /// What stage0 extends a TDX guest's registers with, or a simulated one's: the same for all sizes.
    #[must_use]
    pub fn runtime_measurements(&self) -> RuntimeMeasurements {
        RuntimeMeasurements::of(self.images.all())
    }

    /// Kernel, initrd and command line.
    #[must_use]
    pub const fn images(&self) -> &GuestImages {
        &self.images
    }
}

/// Why a guest has no plan.
#[derive(Debug, Error)]
pub enum GuestError {
    /// stage0's file is none.
    #[error("the file of stage0 is no image of it; build it with `cargo xtask stage0`")]
    Stage0(#[from] Stage0Error),
    /// Kernel, initrd or command line.
    #[error("the guest's files can't be launched")]
    Images(#[from] ImagesError),
    /// Linux would cut the command line off.
    #[error("the kernel command line has {0} bytes, the kernel takes {max}", max = command_line::MAX)]
    CommandLine(usize),
    /// The memory is too little or too much.
    #[error("the guest's memory is impossible")]
    Memory(#[source] nacre_stage0_abi::MemoryMapError),
    /// There is no plan of this size.
    #[error("the guest can't be planned")]
    Plan(#[from] PlanError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::kernel;

    fn guest(tee: Tee, parameters: &str) -> Result<Guest, GuestError> {
        let (stage0, kernel) = ([0x90; 0x2000], kernel());
        let files = GuestFiles {
            stage0: &stage0,
            kernel: &kernel,
            initrd: b"initrd",
            kernel_parameters: parameters,
            known: KnownHashes::default(),
        };
        Guest::new(tee, &files)
    }

    fn measurement(tee: Tee, vcpus: u32, memory_mib: u32) -> String {
        let plan = guest(tee, "quiet").unwrap().plan(vcpus, memory_mib, Policy::default()).unwrap();
        plan.measurement().to_string()
    }

    #[test]
    fn technology_vcpus_memory_and_command_line_are_measured() {
        let one = measurement(Tee::Snp, 1, 256);
        assert_eq!(one, measurement(Tee::Snp, 1, 256));
        assert_ne!(one, measurement(Tee::Simulated, 1, 256));
        assert_ne!(measurement(Tee::Tdx, 1, 256), measurement(Tee::SimulatedTdx, 1, 256));
        assert_ne!(one, measurement(Tee::Snp, 2, 256));
        assert_ne!(one, measurement(Tee::Snp, 1, 512));
        let other = guest(Tee::Snp, "debug").unwrap().plan(1, 256, Policy::default()).unwrap();
        assert_ne!(one, other.measurement().to_string());
    }

    #[test]
    fn what_can_not_be_launched_is_named() {
        let error = guest(Tee::Snp, &"x".repeat(2000)).unwrap_err().to_string();
        assert!(
            error.starts_with("the kernel command line has ") && error.ends_with("takes 2047"),
            "{error}"
        );
        let plan = guest(Tee::Simulated, "").unwrap().plan(1, 1, Policy::default());
        assert_eq!(plan.unwrap_err().to_string(), "the guest's memory is impossible");
    }
}
