//! Launching an Intel TDX guest, a trust domain: the calls, in the order in which KVM and the module want them.
//!
//! [`Launch`] has a type for each step, so that a wrong order does not compile. It speaks to a [`Kernel`], which is KVM
//! with the TDX module behind it, or in tests a model of both that refuses what they refuse.
//!
//! Structures and their rules: Linux 6.16, `Documentation/virt/kvm/x86/intel-tdx.rst` and `arch/x86/kvm/vmx/tdx.c`. Where
//! the two say different things, this follows the code.

pub mod abi;
mod cpuid;
mod fatal;
mod kernel;
mod kvm;
mod quote;
mod refusal;
mod requests;
mod service;

use std::sync::Arc;

use kvm_bindings::kvm_cpuid_entry2;
use nacre_launch::{HostData, LaunchPlan, PageKind, PageRange, TDX_SHARED_BIT};
use nix::errno::Errno;

use abi::{Capabilities, CpuidHead, InitVm, Listed, MemRegion};
pub use fatal::fatal_error;
pub use kernel::{CpuCommand, Kernel, MachineCommand, TdxStatus};
pub use kvm::{Kvm as KvmKernel, check as check_host, create as create_vm};
pub use quote::Quotes;
pub use refusal::{Missing, ModuleStatus, TdxError};
pub use requests::{Interrupt, Requests};
pub use service::{QuoteSource, Service, ServiceError};

use crate::private::{
    self, Initialised, MOST_RETRIES, Measured, PrivateRegion, Region, Transient, WithCpus, WithMemory, retry,
};
use crate::unsafe_mapping::Mapping;

/// The module's virtual APIC timer runs at 25 MHz.
const APIC_BUS_CYCLE_NS: u64 = 40;
/// The module counts TSC frequencies in units of 25 MHz, from 100 MHz to 10 GHz.
const TSC_UNIT_KHZ: u32 = 25_000;
const TSC_RANGE_KHZ: std::ops::RangeInclusive<u32> = 100_000..=10_000_000;
/// x87 and SSE, which no guest is without.
pub(crate) const XFAM_NEEDED: u64 = 3;
/// What else a guest gets where it can have it, bit by bit as in XCR0 and IA32_XSS; of each group all or nothing: AVX,
/// AVX-512, PKRU, CET, AMX.
const XFAM_WANTED: [u64; 5] = [1 << 2, 7 << 5, 1 << 9, 3 << 11, 3 << 17];
/// The module draws a key's random numbers with an instruction that may have none. It costs a microsecond to ask again.
const MOST_KEY_RETRIES: u32 = 10_000;
/// The first list for CPUID values, and the longest that is believed.
const LIST: usize = 64;
const LONGEST_LIST: usize = 4096;
/// What RCX and R8 hold at a CPU's first instruction. The host chooses it and it is not measured: stage0 does not read it.
const FIRST_RCX: u64 = 0;

/// What a host says of a guest: in its reports, not in its measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// MRCONFIGID.
    pub config_id: [u8; 48],
    /// MROWNER.
    pub owner: [u8; 48],
    /// MROWNERCONFIG.
    pub owner_config: [u8; 48],
}

impl Identity {
    /// The pod's host data in MRCONFIGID, with zeros behind them. Nothing else differs from pod to pod.
    #[must_use]
    pub fn of(HostData(data): HostData) -> Self {
        let mut config_id = [0; 48];
        config_id.iter_mut().zip(data).for_each(|(place, byte)| *place = byte);
        Self { config_id, owner: [0; 48], owner_config: [0; 48] }
    }
}

/// The machine has what must be there before the module knows of it.
#[derive(Debug)]
pub struct Prepared {
    capabilities: Capabilities,
    configurable: Vec<kvm_cpuid_entry2>,
}

/// A launch that has got as far as `S`.
#[derive(Debug)]
pub struct Launch<K, S> {
    kernel: Arc<K>,
    /// Optional requests of a guest that KVM hands on to us, by GetTdVmCallInfo's bits in R11.
    requests: u64,
    state: S,
}

/// A launched guest: its memory's two sides, and its CPUs, ready to run.
#[derive(Debug)]
pub struct Launched<C> {
    /// The ranges of memory.
    pub regions: Vec<PrivateRegion>,
    /// The CPUs in their order.
    pub cpus: Vec<C>,
    /// Optional requests of the guest that KVM hands on to us, by GetTdVmCallInfo's bits in R11.
    pub requests: u64,
}

impl<K: Kernel> Launch<K, Prepared> {
    /// Begins with a machine of KVM's type for TDX that has nothing yet.
    ///
    /// # Errors
    /// The kernel or the module lacks something.
    pub fn begin(kernel: Arc<K>) -> Result<Self, TdxError> {
        let missing: Vec<Missing> =
            private::missing(kernel.memory()).into_iter().map(Missing::Capability).collect();
        if !missing.is_empty() {
            return Err(TdxError::Missing(missing));
        }
        private::exit_on_conversions(kernel.memory())?;
        let failed = |request| move |errno| TdxError::Kernel(request, errno);
        kernel.split_irqchip().map_err(failed("KVM_CAP_SPLIT_IRQCHIP"))?;
        kernel.set_apic_bus_cycle(APIC_BUS_CYCLE_NS).map_err(failed("KVM_CAP_X86_APIC_BUS_CYCLES_NS"))?;
        let khz = kernel.tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))?;
        kernel.set_tsc_khz(tsc_frequency(khz)).map_err(failed("KVM_SET_TSC_KHZ"))?;
        let (capabilities, configurable) = capabilities(&*kernel)?;
        let missing = lacking(&capabilities, &configurable);
        if !missing.is_empty() {
            return Err(TdxError::Missing(missing));
        }
        let requests = capabilities.user_tdvmcallinfo_1_r11;
        Ok(Self { kernel, requests, state: Prepared { capabilities, configurable } })
    }

    /// Makes it a trust domain for `count` CPUs.
    ///
    /// # Errors
    /// The module refuses, or has no key for another guest.
    pub fn initialise(self, identity: &Identity, count: u8) -> Result<Launch<K, Initialised>, TdxError> {
        let Self { kernel, requests, state: Prepared { capabilities, configurable } } = self;
        let (wanted, most) = (u32::from(count), kernel.most_cpus());
        if wanted > most {
            return Err(TdxError::TooManyCpus { wanted, most });
        }
        let failed = |errno| TdxError::Kernel("KVM_CAP_MAX_VCPUS", errno);
        kernel.set_most_cpus(wanted).map_err(failed)?;
        // The same for all CPUs: what differs, the module fills in.
        let entries = cpuid::configure(&kernel.cpuid(0)?, &configurable, TDX_SHARED_BIT + 1);
        let head = InitVm::new(
            abi::SEPT_VE_DISABLE,
            xfam(capabilities.supported_xfam),
            identity,
            u32::try_from(entries.len()).unwrap_or(u32::MAX),
        );
        let mut command = Listed::new(&head, &entries);
        let mut tries = 0;
        loop {
            match kernel.machine(MachineCommand::Init(&mut command)) {
                Ok(()) => return Ok(Launch { kernel, requests, state: Initialised }),
                Err(status) if status.is_transient() && tries < MOST_KEY_RETRIES => tries += 1,
                Err(TdxStatus { errno: Errno::ENOSPC, .. }) => return Err(TdxError::NoKey),
                Err(status) => return Err(TdxError::Init(status.into())),
            }
        }
    }
}

impl<K: Kernel> Launch<K, Initialised> {
    /// Gives it memory. All of it is private: the guest then needs to convert only what it shares.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_memory(self, regions: &[Region]) -> Result<Launch<K, WithMemory>, TdxError> {
        let regions = private::add_regions(self.kernel.memory(), regions)?;
        Ok(Launch { kernel: self.kernel, requests: self.requests, state: WithMemory { regions } })
    }
}

impl<K: Kernel> Launch<K, WithMemory> {
    /// Makes its CPUs, all that it will ever have, the first one first: the module numbers them as they come.
    ///
    /// # Errors
    /// The kernel or the module refuses.
    pub fn create_cpus(self, count: u8) -> Result<Launch<K, WithCpus<K::Cpu>>, TdxError> {
        let Self { kernel, requests, state: WithMemory { regions } } = self;
        let cpus = (0..count).map(|id| create_cpu(&*kernel, id)).collect::<Result<_, _>>()?;
        Ok(Launch { kernel, requests, state: WithCpus { regions, cpus } })
    }
}

fn create_cpu<K: Kernel>(kernel: &K, id: u8) -> Result<K::Cpu, TdxError> {
    let cpu = kernel.create_cpu(id)?;
    let table = kernel.cpuid(id)?;
    // Before the module's call: KVM puts the APIC into x2APIC mode then, if the CPU is said to have one.
    kernel.set_cpuid(&cpu, id, &table)?;
    retry(|| kernel.cpu(&cpu, CpuCommand::Init(FIRST_RCX)))
        .map_err(|status| TdxError::InitCpu { cpu: id, status: status.into() })?;
    let module = module_cpuid(kernel, &cpu)?;
    kernel.set_cpuid(&cpu, id, &cpuid::with_module(&table, &module))?;
    Ok(cpu)
}

impl<K: Kernel> Launch<K, WithCpus<K::Cpu>> {
    /// Has the module take the plan's pages, and measure those that are to be measured.
    ///
    /// # Errors
    /// The module refuses a page, which is named.
    pub fn measure(self, plan: &LaunchPlan) -> Result<Launch<K, Measured<K::Cpu>>, TdxError> {
        let Self { kernel, requests, state: WithCpus { regions, cpus } } = self;
        let (planned, made) = (plan.cpus().len(), cpus.len());
        let first = cpus.first().filter(|_| planned == made).ok_or(TdxError::CpuCount { planned, made })?;
        for range in plan.pages() {
            add_pages(&*kernel, first, range)?;
        }
        Ok(Launch { kernel, requests, state: Measured { regions, cpus } })
    }
}

/// Has the module take a range of pages. KVM moves the start on at every return, whatever it returns.
fn add_pages<K: Kernel>(kernel: &K, cpu: &K::Cpu, range: &PageRange) -> Result<(), TdxError> {
    let measure = match range.kind() {
        PageKind::Normal => true,
        PageKind::Unmeasured => false,
        _ => return Err(TdxError::PageKind { name: range.name() }),
    };
    let failed = |errno| TdxError::Kernel("mmap", errno);
    let mut source = Mapping::zeros(range.content().len()).map_err(failed)?;
    source.fill(range.content()).ok_or(failed(Errno::E2BIG))?;
    let pages = source.size() / nacre_stage0_abi::PAGE_SIZE;
    let mut region = MemRegion { source_addr: source.address(), gpa: range.gpa(), nr_pages: pages };
    let mut retries = 0;
    loop {
        let before = region.nr_pages;
        match kernel.cpu(cpu, CpuCommand::AddPages { region: &mut region, measure }) {
            Ok(()) if region.nr_pages == 0 => return Ok(()),
            result => {
                retries = if region.nr_pages < before { 0 } else { retries + 1 };
                let status = result.err().unwrap_or(TdxStatus { errno: Errno::EAGAIN, module: 0 });
                if !status.is_transient() || retries > MOST_RETRIES {
                    let (name, gpa) = (range.name(), region.gpa);
                    return Err(TdxError::Page { name, gpa, status: status.into() });
                }
            }
        }
    }
}

impl<K: Kernel> Launch<K, Measured<K::Cpu>> {
    /// Ends the launch: from here on nothing is added, and all CPUs can run.
    ///
    /// # Errors
    /// The module refuses.
    pub fn finish(self) -> Result<Launched<K::Cpu>, TdxError> {
        let Self { kernel, requests, state: Measured { regions, cpus } } = self;
        retry(|| kernel.machine(MachineCommand::Finalize))
            .map_err(|status| TdxError::Finish(status.into()))?;
        Ok(Launched { regions, cpus, requests })
    }
}

/// Repeats a command with twice the room as long as its list does not fit.
fn growing<H>(
    request: &'static str,
    mut command: impl FnMut(&mut Listed) -> Result<(), TdxStatus>,
    head: impl Fn(u32) -> H,
) -> Result<Listed, TdxError>
where
    H: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    let mut count = LIST;
    loop {
        let mut list = Listed::with_room::<H>(count);
        let room = list.room();
        let result = retry(|| {
            list.set_head(&head(room));
            command(&mut list)
        });
        match result {
            Ok(()) => return Ok(list),
            Err(TdxStatus { errno: Errno::E2BIG, .. }) if count < LONGEST_LIST => count *= 2,
            Err(status) => return Err(TdxError::Command { request, status: status.into() }),
        }
    }
}

fn capabilities<K: Kernel>(kernel: &K) -> Result<(Capabilities, Vec<kvm_cpuid_entry2>), TdxError> {
    let ask = |list: &mut Listed| kernel.machine(MachineCommand::Capabilities(list));
    let list = growing("KVM_TDX_CAPABILITIES", ask, Capabilities::with_room)?;
    let head: Capabilities = list.head();
    Ok((head, list.entries(head.nent)))
}

fn module_cpuid<K: Kernel>(kernel: &K, cpu: &K::Cpu) -> Result<Vec<kvm_cpuid_entry2>, TdxError> {
    let ask = |list: &mut Listed| kernel.cpu(cpu, CpuCommand::Cpuid(list));
    let list = growing("KVM_TDX_GET_CPUID", ask, CpuidHead::new)?;
    Ok(list.entries(list.head::<CpuidHead>().nent))
}

fn lacking(capabilities: &Capabilities, configurable: &[kvm_cpuid_entry2]) -> Vec<Missing> {
    let width =
        configurable.iter().any(|entry| entry.function == 0x8000_0008 && entry.eax >> 16 & 0xff == 0xff);
    let checks = [
        (capabilities.supported_attrs & abi::SEPT_VE_DISABLE != 0, Missing::SeptVeDisable),
        (capabilities.supported_xfam & XFAM_NEEDED == XFAM_NEEDED, Missing::Xfam),
        (width, Missing::AddressWidth),
    ];
    checks.into_iter().filter(|(there, _)| !there).map(|(_, missing)| missing).collect()
}

fn xfam(supported: u64) -> u64 {
    XFAM_WANTED
        .into_iter()
        .filter(|group| supported & group == *group)
        .fold(XFAM_NEEDED, |xfam, group| xfam | group)
}

/// The frequency nearest to the host's that the module can name.
fn tsc_frequency(khz: u32) -> u32 {
    let units = khz.saturating_add(TSC_UNIT_KHZ / 2) / TSC_UNIT_KHZ;
    units.saturating_mul(TSC_UNIT_KHZ).clamp(*TSC_RANGE_KHZ.start(), *TSC_RANGE_KHZ.end())
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
