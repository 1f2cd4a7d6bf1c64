//! From a configuration and sizes to plans.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nacre_configuration::values::SimulatedPlatform;
use nacre_configuration::{Configuration, LoadError, values};
use nacre_launch::{
    Guest, GuestError, GuestFiles, KnownHashes, LaunchPlan, Policy, PolicyError, RuntimeMeasurements, Tee,
    dump,
};
use serde::Serialize;
use thiserror::Error;

/// Of which guests.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Wanted {
    /// The technology, if it is not the configured one
    #[arg(long, value_enum)]
    pub tee: Option<TeeName>,
    /// Numbers of vCPUs, with commas between them; all of confidential.vcpus if not given
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub vcpus: Vec<u32>,
    /// Sizes of memory in MiB, with commas between them
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub memory_mib: Vec<u32>,
    /// Reads this configuration file, with the drop-ins in conf.d beside it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The technologies that measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeName {
    /// AMD SEV-SNP
    Snp,
    /// Intel TDX
    Tdx,
    /// The software model of AMD SEV-SNP, which is not confidential
    Simulated,
    /// The software model of Intel TDX, which is not confidential
    SimulatedTdx,
}

/// A guest's plan, whose measurement is its reference value.
#[derive(Debug)]
pub struct Reference {
    /// The technology.
    pub tee: TeeName,
    /// The guest's CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u32,
    /// All that is in its memory at the start.
    pub plan: LaunchPlan,
    /// What stage0 adds at run time, on TDX and where that is simulated.
    pub runtime: Option<RuntimeMeasurements>,
}

/// The plans of all wanted sizes, vCPUs ascending within each size of memory.
///
/// # Errors
/// A size that no pod has, or files that can't be launched.
pub fn references(configuration: &Configuration, wanted: &Wanted) -> Result<Vec<Reference>, Error> {
    let confidential = &configuration.confidential;
    let tee = match wanted.tee {
        Some(tee) => tee,
        None => TeeName::configured(configuration)?,
    };
    let vcpus = sizes("vcpus", &wanted.vcpus, confidential.vcpus.as_slice())?;
    let default = u64::from(configuration.vm.default_memory_mib.get());
    let default = confidential.memory_mib.round_up(default);
    let memory = match (wanted.memory_mib.is_empty(), default) {
        (true, Some(default)) => vec![default],
        (true, None) => return Err(Error::DefaultMemory),
        (false, _) => sizes("memory_mib", &wanted.memory_mib, confidential.memory_mib.as_slice())?,
    };
    let policy = Policy::new(confidential.policy.bits())?;
    let guest = guest(configuration, tee)?;
    let registers = matches!(tee, TeeName::Tdx | TeeName::SimulatedTdx);
    let runtime = registers.then(|| guest.runtime_measurements());
    let each = memory.iter().flat_map(|memory| vcpus.iter().map(move |vcpus| (*vcpus, *memory)));
    each.map(|(vcpus, memory_mib)| {
        let plan = guest.plan(vcpus, memory_mib, policy)?;
        Ok(Reference { tee, vcpus, memory_mib, plan, runtime })
    })
    .collect()
}

fn guest(configuration: &Configuration, tee: TeeName) -> Result<Guest, Error> {
    let files = &configuration.guest;
    let read = |what, path: &Path| {
        fs::read(path).map_err(|source| Error::File { what, path: path.to_owned(), source })
    };
    let stage0 = read("stage0", &files.stage0)?;
    let kernel = read("the guest kernel", &files.kernel)?;
    let initrd = read("the guest image", &files.initrd)?;
    let kernel_parameters = files.appended_parameters();
    let files = GuestFiles {
        stage0: &stage0,
        kernel: &kernel,
        initrd: &initrd,
        kernel_parameters: &kernel_parameters,
        // A reference value is computed of the files themselves, whatever a node remembers of them.
        known: KnownHashes::default(),
    };
    Ok(Guest::new(tee.into(), &files)?)
}

/// A size that pods don't have would be a reference value that no report ever shows.
fn sizes(key: &'static str, wanted: &[u32], configured: &[u32]) -> Result<Vec<u32>, Error> {
    if wanted.is_empty() {
        return Ok(configured.to_vec());
    }
    match wanted.iter().find(|size| !configured.contains(size)) {
        Some(&wanted) => Err(Error::Size { key, wanted, configured: configured.to_vec() }),
        None => Ok(wanted.to_vec()),
    }
}

impl TeeName {
    fn configured(configuration: &Configuration) -> Result<Self, Error> {
        match (configuration.vm.tee, configuration.confidential.simulated_platform) {
            (values::Tee::Snp, _) => Ok(Self::Snp),
            (values::Tee::Tdx, _) => Ok(Self::Tdx),
            (values::Tee::Simulated, SimulatedPlatform::Snp) => Ok(Self::Simulated),
            (values::Tee::Simulated, SimulatedPlatform::Tdx) => Ok(Self::SimulatedTdx),
            (tee @ values::Tee::None, _) => Err(Error::NotMeasured(tee)),
        }
    }

    /// As on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Simulated => "simulated",
            Self::SimulatedTdx => "simulated-tdx",
        }
    }
}

impl From<TeeName> for Tee {
    fn from(tee: TeeName) -> Self {
        match tee {
            TeeName::Snp => Self::Snp,
            TeeName::Tdx => Self::Tdx,
            TeeName::Simulated => Self::Simulated,
            TeeName::SimulatedTdx => Self::SimulatedTdx,
        }
    }
}

impl fmt::Display for TeeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why there are no reference values.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration can't be read.
    #[error(transparent)]
    Configuration(#[from] LoadError),
    /// The configured technology measures nothing.
    #[error("vm.tee is \"{0}\", which has no measurement; say which one is meant with --tee")]
    NotMeasured(values::Tee),
    /// No pod has this size.
    #[error(
        "no pod has {key} = {wanted}: confidential.{key} is {configured:?}, to which pods are rounded up"
    )]
    Size {
        /// The key with the list.
        key: &'static str,
        /// What was asked for.
        wanted: u32,
        /// What pods have.
        configured: Vec<u32>,
    },
    /// The default is larger than any size.
    #[error(
        "vm.default_memory_mib is more than the largest of confidential.memory_mib: make one of them fit"
    )]
    DefaultMemory,
    /// A file can't be read.
    #[error("can't read {what}, {path}; the configuration's section guest says where it is")]
    File {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The policy is impossible.
    #[error("confidential.policy is impossible")]
    Policy(#[from] PolicyError),
    /// The files can't be launched.
    #[error("there is no measurement")]
    Guest(#[from] GuestError),
    /// The dump can't be written.
    #[error("can't write the dump")]
    Dump(#[from] dump::DumpError),
}
