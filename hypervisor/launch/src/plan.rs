//! The launch plan.

mod check;
mod page;
mod stage0;

use nacre_stage0_abi::{MemoryMap, PageBit, Parameters, ParametersError, layout};
use thiserror::Error;
use zerocopy::IntoBytes;

use crate::cpu_state::CpuState;
use crate::digest::{LaunchDigest, Measurement};
use crate::id_block::{IdBlockError, SignedIdBlock};
use crate::images::{GuestImages, SharedRange};
use crate::mrtd::Mrtd;
use crate::policy::Policy;

pub use check::Limits;
pub use page::{PageKind, PageRange};
pub use stage0::{Stage0Error, Stage0Image};

/// The encryption bit of every processor with SEV-SNP.
const SNP_ENCRYPTION_BIT: u32 = 51;

/// A TDX guest with 48 bits of guest-physical address, which every processor with TDX can give.
pub const TDX_SHARED_BIT: u32 = 47;

/// What the plan must know of the machine beside its memory's content. All of it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// How many vCPUs there are: a number of [`VcpuCounts`](crate::VcpuCounts).
    pub vcpus: u32,
    /// Which addresses are memory.
    pub memory: MemoryMap,
    /// The first IOAPIC pin of a device.
    pub first_interrupt: u32,
    /// How many IOAPIC pins belong to devices.
    pub interrupts: u32,
}

/// 32 bytes that a host gives a guest. They are in the guest's reports but not in its measurement, and so the
/// place for what differs from pod to pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostData(pub [u8; 32]);

/// Who measures what is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurer {
    /// The SEV-SNP firmware, or the software model of it.
    Firmware,
    /// The TDX module, or the software model of it.
    TdxModule,
}

/// Everything that is in a guest's memory before its first instruction, and everything that is measured.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    pages: Vec<PageRange>,
    cpus: Vec<CpuState>,
    measurer: Measurer,
    memory: MemoryMap,
    shared: Vec<SharedRange>,
    policy: Policy,
    host_data: HostData,
    id_block: Option<SignedIdBlock>,
}

impl LaunchPlan {
    /// The plan of an SEV-SNP guest.
    ///
    /// # Errors
    /// stage0 would refuse what it is told, or the plan is too much for the security processor.
    pub fn snp(
        stage0: &Stage0Image,
        images: &GuestImages,
        machine: &Machine,
        policy: Policy,
    ) -> Result<Self, PlanError> {
        let pages = vec![
            PageRange::without_content("secrets", layout::SECRETS_PAGE, PageKind::Secrets),
            PageRange::without_content("cpuid", layout::CPUID_PAGE, PageKind::Cpuid),
        ];
        let cpu = CpuState::stage0_snp;
        Self::build(stage0, images, machine, policy, PageBit::Private(SNP_ENCRYPTION_BIT), cpu, pages)
    }

    /// The plan of a TDX guest. Its [`PageKind::Normal`] pages are added and measured, its [`PageKind::Unmeasured`]
    /// ones are added only: their addresses are measured. CPU states are the module's, and not measured.
    ///
    /// # Errors
    /// As for [`LaunchPlan::snp`].
    pub fn tdx(stage0: &Stage0Image, images: &GuestImages, machine: &Machine) -> Result<Self, PlanError> {
        // Memory is taken into use in 64-bit mode, so what leads there is added. stage0 reads none of it before it
        // has written it.
        let added = |name, start: u64, end: u64| {
            let len = usize::try_from(end - start).unwrap_or_default();
            PageRange::new(name, start, PageKind::Unmeasured, vec![0; len])
        };
        let stack = layout::FIRST_STACK;
        let pages = vec![
            added("page-tables", layout::PAGE_TABLES, layout::MAILBOX_PAGE),
            added("stack", stack.start(), stack.end()),
        ];
        let (bit, cpu) = (PageBit::Shared(TDX_SHARED_BIT), CpuState::stage0_tdx);
        let plan = Self::build(stage0, images, machine, Policy::default(), bit, cpu, pages)?;
        Ok(Self { measurer: Measurer::TdxModule, ..plan })
    }

    /// The plan of a guest without confidential memory that starts in the same way.
    ///
    /// # Errors
    /// As for [`LaunchPlan::snp`].
    pub fn plain(
        stage0: &Stage0Image,
        images: &GuestImages,
        machine: &Machine,
        policy: Policy,
    ) -> Result<Self, PlanError> {
        Self::build(stage0, images, machine, policy, PageBit::None, CpuState::stage0_plain, Vec::new())
    }

    /// The plan of a guest without confidential memory that a software TDX module measures.
    ///
    /// # Errors
    /// As for [`LaunchPlan::snp`].
    pub fn simulated_tdx(
        stage0: &Stage0Image,
        images: &GuestImages,
        machine: &Machine,
    ) -> Result<Self, PlanError> {
        let plan = Self::plain(stage0, images, machine, Policy::default())?;
        Ok(Self { measurer: Measurer::TdxModule, ..plan })
    }

    fn build(
        stage0: &Stage0Image,
        images: &GuestImages,
        machine: &Machine,
        policy: Policy,
        page_bit: PageBit,
        cpu: fn(u32) -> CpuState,
        platform_pages: Vec<PageRange>,
    ) -> Result<Self, PlanError> {
        let Machine { vcpus, memory, first_interrupt, interrupts } = machine.clone();
        let parameters = Parameters { vcpus, page_bit, first_interrupt, interrupts, memory }.to_page();
        // Read back by stage0's own rules: the host launches nothing that stage0 would refuse.
        let memory = Parameters::parse(&parameters)?.memory;
        let hashes = images.list(&memory)?.to_page();
        let normal =
            |name, gpa, content: &[u8]| PageRange::new(name, gpa, PageKind::Normal, content.to_vec());
        let mut pages = vec![
            normal("hashes", layout::HASHES_PAGE, hashes.as_bytes()),
            normal("parameters", layout::PARAMETERS_PAGE, parameters.as_bytes()),
        ];
        pages.extend(platform_pages);
        pages.push(normal("stage0", stage0.gpa(), stage0.bytes()));
        check::pages(&pages, &memory, Limits::default())?;
        Ok(Self {
            pages,
            cpus: (0..vcpus).map(cpu).collect(),
            measurer: Measurer::Firmware,
            memory,
            shared: images.shared().to_vec(),
            policy,
            host_data: HostData::default(),
            id_block: None,
        })
    }

    /// The same plan for a pod with this host data. The measurement stays.
    #[must_use]
    pub fn with_host_data(self, host_data: HostData) -> Self {
        Self { host_data, ..self }
    }

    /// The same plan with a signed ID block. The measurement stays.
    ///
    /// # Errors
    /// The block is for another launch, or its signatures are not right: the firmware would refuse it.
    pub fn with_id_block(self, signed: SignedIdBlock) -> Result<Self, PlanError> {
        signed.verify()?;
        let (expected, actual) = (signed.block().measurement(), self.measurement());
        if expected != actual {
            return Err(PlanError::IdBlockMeasurement { expected, actual });
        }
        let (expected, actual) = (signed.block().policy(), self.policy);
        if expected != actual.bits() {
            return Err(PlanError::IdBlockPolicy { expected, actual });
        }
        Ok(Self { id_block: Some(signed), ..self })
    }

    /// The measurement of a launch that follows the plan.
    #[must_use]
    pub fn measurement(&self) -> Measurement {
        match self.measurer {
            Measurer::Firmware => self.launch_digest(),
            Measurer::TdxModule => self.mrtd(),
        }
    }

    fn mrtd(&self) -> Measurement {
        let mut mrtd = Mrtd::new();
        for range in &self.pages {
            for (gpa, content) in range.pages() {
                mrtd.add_page(gpa, range.kind().is_measured().then_some(content));
            }
        }
        mrtd.finish()
    }

    fn launch_digest(&self) -> Measurement {
        let mut digest = LaunchDigest::new();
        for range in &self.pages {
            for (gpa, content) in range.pages() {
                digest.add_page(gpa, range.kind(), content);
            }
        }
        self.cpus.iter().fold(digest.into_cpus(), |digest, cpu| digest.add_cpu(cpu)).finish()
    }

    /// Who measures.
    #[must_use]
    pub const fn measurer(&self) -> Measurer {
        self.measurer
    }

    /// The ranges of private memory, in the order in which they are added.
    #[must_use]
    pub fn pages(&self) -> &[PageRange] {
        &self.pages
    }

    /// The first state of each CPU, in their order.
    #[must_use]
    pub fn cpus(&self) -> &[CpuState] {
        &self.cpus
    }

    /// Which addresses are memory. What is not among the pages is private and not yet in use.
    #[must_use]
    pub const fn memory(&self) -> &MemoryMap {
        &self.memory
    }

    /// The memory that is shared with the host from the start: all of [`layout::SHARED_WINDOW`].
    #[must_use]
    pub fn shared(&self) -> &[SharedRange] {
        &self.shared
    }

    /// The guest's policy.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The pod's host data.
    #[must_use]
    pub const fn host_data(&self) -> HostData {
        self.host_data
    }

    /// The signed ID block, if there is one.
    #[must_use]
    pub const fn id_block(&self) -> Option<&SignedIdBlock> {
        self.id_block.as_ref()
    }

    /// How many bytes the security processor hashes, without the CPU states.
    #[must_use]
    pub fn measured_bytes(&self) -> u64 {
        check::measured_bytes(&self.pages)
    }

    /// How many pages are added, without the CPU states.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        check::page_commands(&self.pages)
    }

    /// How many commands the security processor gets, one for each page and each CPU. A TDX module does not measure CPUs.
    #[must_use]
    pub fn commands(&self) -> u64 {
        let cpus = match self.measurer {
            Measurer::Firmware => u64::try_from(self.cpus.len()).unwrap_or(u64::MAX),
            Measurer::TdxModule => 0,
        };
        self.page_count() + cpus
    }
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The machine is impossible.
    #[error("the machine's parameters are impossible")]
    Parameters(#[from] ParametersError),
    /// Kernel, initrd or command line have no place in the machine.
    #[error("kernel, initrd or command line have no place")]
    Images(#[from] nacre_stage0_abi::ImagesError),
    /// Two ranges of pages overlap.
    #[error("{second} overlaps {first}")]
    Overlap {
        /// The one that comes first in the plan.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A range of pages is not made of whole pages.
    #[error("{name} is not made of whole pages")]
    NotPages {
        /// Which.
        name: &'static str,
    },
    /// A range of pages is neither memory nor the place of stage0's image.
    #[error("{name} at {gpa:#x} is where no memory is")]
    NoMemory {
        /// Which.
        name: &'static str,
        /// Where.
        gpa: u64,
    },
    /// The security processor would have too much to hash.
    #[error("{bytes} bytes to measure, at most {limit} are allowed")]
    TooManyBytes {
        /// How many.
        bytes: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The security processor would have too many commands to carry out.
    #[error("{commands} page commands, at most {limit} are allowed")]
    TooManyCommands {
        /// How many.
        commands: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The ID block's signatures are wrong.
    #[error("the ID block is not signed as it must be")]
    IdBlock(#[from] IdBlockError),
    /// The ID block is for another launch.
    #[error("the ID block is for measurement {expected}, this launch has {actual}")]
    IdBlockMeasurement {
        /// The block's.
        expected: Measurement,
        /// The plan's.
        actual: Measurement,
    },
    /// The ID block is for another policy.
    #[error("the ID block is for policy {expected:#x}, this launch has {actual}")]
    IdBlockPolicy {
        /// The block's.
        expected: u64,
        /// The plan's.
        actual: Policy,
    },
}

/// Memory of `bytes`, which are whole pages: what does not fit below the gap for devices is above 4 GiB.
///
/// # Errors
/// It is no memory map: too little, too much, or not whole pages.
pub fn memory_of(bytes: u64) -> Result<MemoryMap, nacre_stage0_abi::MemoryMapError> {
    let gap = layout::DEVICE_GAP;
    let low = (0, bytes.min(gap.start()));
    let high = bytes.checked_sub(gap.start()).filter(|rest| *rest > 0).map(|rest| (gap.end(), rest));
    MemoryMap::new([low].into_iter().chain(high))
}

#[cfg(test)]
pub(crate) mod tests;
