//! A machine that starts by a launch plan: its files, the plan, and what of it is in memory before the first instruction.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use nacre_attestation::tdx::{EnclaveError, QuotingEnclave};
use nacre_attestation::{KeyError, SoftwareVcek};
use nacre_control::{HashFiles, IdBlockFiles, SimulatedTee, TeeConfig, TeePlatform, VmConfig};
use nacre_launch::{
    Guest, GuestError, GuestFiles, HostData, IdBlockError, ImageSource, KnownHashes, LaunchPlan, PageKind,
    PageRange, PlanError, Policy, PolicyError, Sha256Hash, SignedIdBlock, Tee,
};
use nacre_stage0_abi::{AddressRange, ImageKind};
use nix::errno::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::files::{Files, FilesError};
use crate::memory::GuestMemory;
use crate::remembered::{Remembered, Version};
use crate::unsafe_mapping::Mapping;

/// More than a kernel or an initrd has: nothing reads a file without an end.
const LARGEST_FILE: u64 = 256 << 20;

/// Why a machine can't be planned or filled.
#[derive(Debug, thiserror::Error)]
pub enum MeasuredError {
    /// A file did not come.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file can't be read.
    #[error("{what} can't be read")]
    Read {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{what} has more than {LARGEST_FILE} bytes")]
    TooLarge {
        /// Which.
        what: &'static str,
    },
    /// The policy is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is no plan.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The ID block is none.
    #[error("the ID block can't be used")]
    IdBlock(#[from] IdBlockError),
    /// The ID block is for another launch.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The key for reports is none.
    #[error("the simulated platform's key can't be used; `nacre keys` makes one")]
    Key(#[source] KeyError),
    /// The key for quotes is none.
    #[error("the simulated platform's key for quotes can't be used; `nacre keys` makes one")]
    Enclave(#[source] EnclaveError),
    /// A mapping failed.
    #[error("can't map memory for the guest's {0}")]
    Map(&'static str, #[source] Errno),
    /// A page of the plan is where no memory is.
    #[error("a page of the launch plan can't be placed in guest memory")]
    Place(#[from] GuestMemoryError),
}

/// The files of a measured machine.
#[derive(Debug)]
pub struct MeasuredFiles {
    /// Who measures.
    pub platform: TeePlatform,
    stage0: File,
    kernel: File,
    initrd: File,
    id_block: Option<(File, File)>,
    report_key: Option<File>,
    hashes: Option<(Remembered, Remembered)>,
    kernel_parameters: String,
    policy: u64,
    host_data: [u8; 32],
    vcpus: u8,
    memory_mib: u32,
}

impl MeasuredFiles {
    /// Takes the files that `tee` and `config` name.
    ///
    /// # Errors
    /// One did not come.
    pub fn take(config: &VmConfig, tee: &TeeConfig, files: &mut Files) -> Result<Self, FilesError> {
        let mut id_file = |index| files.take_file(index, "a file of the ID block");
        let id_block = match tee.id_block {
            Some(IdBlockFiles { block, authentication }) => Some((id_file(block)?, id_file(authentication)?)),
            None => None,
        };
        let report_key = match tee.platform {
            TeePlatform::Simulated { key, .. } => key,
            TeePlatform::Snp { .. } | TeePlatform::Tdx { .. } => None,
        };
        let report_key = report_key.map(|key| files.take_file(key, "the key for reports")).transpose()?;
        let mut remembered = |index| files.take_file(index, "remembered hashes").map(Remembered::new);
        let hashes = match tee.hashes {
            Some(HashFiles { kernel, initrd }) => Some((remembered(kernel)?, remembered(initrd)?)),
            None => None,
        };
        Ok(Self {
            platform: tee.platform,
            stage0: files.take_file(tee.stage0, "stage0")?,
            kernel: files.take_file(config.kernel, "the guest kernel")?,
            initrd: files.take_file(config.initrd, "the initrd")?,
            id_block,
            report_key,
            hashes,
            kernel_parameters: config.kernel_parameters.clone(),
            policy: tee.policy,
            host_data: tee.host_data,
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        })
    }

    /// Reads the files, hashes those whose hashes are not known, and makes the plan.
    ///
    /// # Errors
    /// See [`MeasuredError`].
    pub fn plan(self) -> Result<Planned, MeasuredError> {
        let tee = match self.platform {
            TeePlatform::Simulated { tee: SimulatedTee::Snp, .. } => Tee::Simulated,
            TeePlatform::Simulated { tee: SimulatedTee::Tdx, .. } => Tee::SimulatedTdx,
            TeePlatform::Snp { .. } => Tee::Snp,
            TeePlatform::Tdx { .. } => Tee::Tdx,
        };
        let (kernel_memory, initrd_memory) = self.hashes.unzip();
        let known_kernel = Known::recall(kernel_memory, &self.kernel);
        let known_initrd = Known::recall(initrd_memory, &self.initrd);
        let (stage0, kernel) = (read(&self.stage0, "stage0")?, read(&self.kernel, "the guest kernel")?);
        let initrd = read(&self.initrd, "the initrd")?;
        let files = GuestFiles {
            stage0: &stage0,
            kernel: &kernel,
            initrd: &initrd,
            kernel_parameters: &self.kernel_parameters,
            known: KnownHashes { kernel: &known_kernel.hashes, initrd: &known_initrd.hashes },
        };
        let guest = Guest::new(tee, &files)?;
        known_kernel.update(&self.kernel, &guest.images().hashes(ImageKind::Kernel));
        known_initrd.update(&self.initrd, &guest.images().hashes(ImageKind::Initrd));
        let plan = guest.plan(self.vcpus.into(), self.memory_mib, Policy::new(self.policy)?)?;
        let mut plan = plan.with_host_data(HostData(self.host_data));
        if let Some((block, authentication)) = &self.id_block {
            let (block, authentication) =
                (read(block, "the ID block")?, read(authentication, "the ID authentication")?);
            plan = plan.with_id_block(SignedIdBlock::from_bytes(&block, &authentication)?)?;
        }
        let command_line = guest.images().command_line().to_vec();
        let signer = self.report_key.as_ref().map(|key| ReportSigner::read(key, tee)).transpose()?;
        Ok(Planned { plan, kernel: self.kernel, initrd: self.initrd, command_line, signer })
    }
}

/// What was known of a file before it was read.
struct Known {
    memory: Option<(Remembered, Version)>,
    hashes: Vec<Sha256Hash>,
}

impl Known {
    fn recall(memory: Option<Remembered>, file: &File) -> Self {
        let memory = memory.and_then(|memory| Some((memory, Version::of(file).ok()?)));
        let hashes = memory.as_ref().map(|(memory, version)| memory.recall(version)).unwrap_or_default();
        Self { memory, hashes }
    }

    fn update(self, file: &File, hashes: &[Sha256Hash]) {
        if let Some((memory, version)) = self.memory.filter(|_| self.hashes != hashes) {
            memory.remember(file, &version, hashes);
        }
    }
}

/// Who signs what the simulated platform reports.
#[derive(Debug)]
pub enum ReportSigner {
    /// In place of a processor with SEV-SNP.
    Processor(Box<SoftwareVcek>),
    /// In place of Intel's quoting enclave.
    Enclave(Box<QuotingEnclave>),
}

impl ReportSigner {
    fn read(file: &File, tee: Tee) -> Result<Self, MeasuredError> {
        let text = String::from_utf8(read(file, "the key for reports")?).unwrap_or_default();
        match tee {
            Tee::SimulatedTdx => QuotingEnclave::from_pem(&text)
                .map(Box::new)
                .map(Self::Enclave)
                .map_err(MeasuredError::Enclave),
            _ => SoftwareVcek::from_pem(&text).map(Box::new).map(Self::Processor).map_err(MeasuredError::Key),
        }
    }
}

fn read(file: &File, what: &'static str) -> Result<Vec<u8>, MeasuredError> {
    let failed = |source| MeasuredError::Read { what, source };
    let mut bytes = Vec::new();
    let mut whole = At { file, offset: 0 };
    whole.by_ref().take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(MeasuredError::TooLarge { what });
    }
    Ok(bytes)
}

/// Reads from the start, wherever the descriptor stands: it may be shared.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A plan, and the files that the guest will find in the shared window. Nothing ties the two together but stage0, which
/// checks them against the plan's hashes.
#[derive(Debug)]
pub struct Planned {
    /// What is in memory and measured.
    pub plan: LaunchPlan,
    /// The kernel's file.
    pub kernel: File,
    /// The initrd's file.
    pub initrd: File,
    /// The command line with its final zero.
    pub command_line: Vec<u8>,
    /// Who signs the simulated platform's reports; without anybody there are none.
    pub signer: Option<ReportSigner>,
}

/// Memory that the guest sees at an address beside its RAM.
#[derive(Debug)]
pub struct Placed {
    /// The first address.
    pub gpa: u64,
    /// What is there.
    pub mapping: Mapping,
}

impl Planned {
    /// The shared window: the files as they are, each in a mapping of its own.
    ///
    /// # Errors
    /// A file can't be mapped.
    pub fn window(&self) -> Result<Vec<Placed>, MeasuredError> {
        let place = |range: AddressRange, source| {
            let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
            let mapping = match source {
                ImageSource::Kernel => Mapping::file(&self.kernel, len),
                ImageSource::Initrd => Mapping::file(&self.initrd, len),
                ImageSource::CommandLine => Mapping::zeros(len).and_then(|mut mapping| {
                    mapping.fill(&self.command_line).ok_or(Errno::E2BIG)?;
                    Ok(mapping)
                }),
            };
            let mapping = mapping.map_err(|errno| MeasuredError::Map("shared window", errno))?;
            Ok(Placed { gpa: range.start(), mapping })
        };
        self.plan.shared().iter().map(|shared| place(shared.range, shared.source)).collect()
    }

    /// Memory for those pages of the plan that are not in RAM: stage0's image. It is empty.
    ///
    /// # Errors
    /// The memory can't be mapped.
    pub fn rom(&self) -> Result<Vec<Placed>, MeasuredError> {
        let in_ram =
            |gpa, len| AddressRange::new(gpa, len).is_some_and(|range| self.plan.memory().contains(range));
        let outside =
            self.plan.pages().iter().filter(|range| !in_ram(range.gpa(), range.content().len() as u64));
        let place = |range: &PageRange| {
            let mapping = Mapping::zeros(range.content().len());
            Ok(Placed {
                gpa: range.gpa(),
                mapping: mapping.map_err(|errno| MeasuredError::Map("first code", errno))?,
            })
        };
        outside.map(place).collect()
    }

    /// Writes the plan's pages to memory that nobody encrypts, and gives each one, as it is in memory then, to `measure`.
    ///
    /// # Errors
    /// A page is where no memory is.
    pub fn write_pages(
        &self,
        memory: &GuestMemory,
        rom: &mut [Placed],
        mut measure: impl FnMut(u64, PageKind, &[u8; 4096]),
    ) -> Result<(), MeasuredError> {
        let lost = || MeasuredError::Map("first code", Errno::E2BIG);
        for range in self.plan.pages() {
            let mut outside = rom.iter_mut().find(|placed| placed.gpa == range.gpa());
            match &mut outside {
                Some(placed) => placed.mapping.fill(range.content()).ok_or_else(lost)?,
                None => memory.write_slice(range.content(), GuestAddress(range.gpa()))?,
            }
            for (offset, (gpa, _)) in (0..).step_by(4096).zip(range.pages()) {
                let page = match &outside {
                    Some(placed) => placed.mapping.page(offset).ok_or_else(lost)?,
                    None => {
                        let mut page = [0; 4096];
                        memory.read_slice(&mut page, GuestAddress(gpa))?;
                        page
                    }
                };
                measure(gpa, range.kind(), &page);
            }
        }
        Ok(())
    }
}
