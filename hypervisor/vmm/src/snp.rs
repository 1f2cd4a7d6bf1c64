//! Launching an SEV-SNP guest: the calls, in the order in which KVM and the firmware want them.
//!
//! [`Launch`] has a type for each step, so that a wrong order does not compile. It speaks to a [`Kernel`], which is KVM
//! with the security processor behind it, or in tests a model of both that refuses what they refuse.
//!
//! Structures and their rules: Linux, `Documentation/virt/kvm/x86/amd-memory-encryption.rst`.

pub mod certificates;
mod cpuid_page;
mod kernel;
mod kvm;
mod refusal;
mod termination;

use std::sync::Arc;

use kvm_bindings::{
    kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update,
};
use nacre_launch::{LaunchPlan, PageKind, PageRange};
use nacre_stage0_abi::snp::CpuidPage;
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

pub use cpuid_page::{CpuidError, adjust as adjust_cpuid, build as build_cpuid_page};
pub use kernel::{Command, Kernel, SevError};
pub use kvm::{Kvm as KvmKernel, check as check_host, create as create_vm};
pub use refusal::{FirmwareStatus, Missing, SnpError};
pub use termination::termination;

use crate::private::{
    self, Initialised, MOST_RETRIES, Measured, PrivateRegion, Region, Transient, WithCpus, WithMemory, retry,
};

/// The GHCB protocol's second version, the first with SEV-SNP.
const GHCB_VERSION: u16 = 2;

/// A launch that has got as far as `S`.
#[derive(Debug)]
pub struct Launch<K, S> {
    kernel: Arc<K>,
    state: S,
}

/// A launched guest: its memory's two sides, and its CPUs, ready to run.
#[derive(Debug)]
pub struct Launched<C> {
    /// The ranges of memory.
    pub regions: Vec<PrivateRegion>,
    /// The CPUs in their order.
    pub cpus: Vec<C>,
}

impl<K: Kernel> Launch<K, Initialised> {
    /// Begins with a machine of KVM's type for SEV-SNP that has nothing yet.
    ///
    /// # Errors
    /// The kernel lacks something, or the firmware has no room for another guest.
    pub fn begin(kernel: Arc<K>) -> Result<Self, SnpError> {
        let missing: Vec<Missing> =
            private::missing(kernel.memory()).into_iter().map(Missing::Capability).collect();
        if !missing.is_empty() {
            return Err(SnpError::Missing(missing));
        }
        private::exit_on_conversions(kernel.memory())?;
        let init = kvm_sev_init { ghcb_version: GHCB_VERSION, ..Default::default() };
        kernel.sev(Command::Init2(&init)).map_err(SnpError::init)?;
        Ok(Self { kernel, state: Initialised })
    }

    /// Has the kernel ask us for the certificates that go with the guest's reports; `false` if it never asks anybody, as
    /// kernels before it knew this don't.
    ///
    /// # Errors
    /// The kernel refuses for another reason.
    pub fn hand_over_certificates(&self) -> Result<bool, SnpError> {
        match self.kernel.sev(Command::EnableCertificates) {
            Ok(()) => Ok(true),
            Err(SevError { errno: Errno::EINVAL, .. }) => Ok(false),
            Err(error) => Err(SnpError::init(error)),
        }
    }

    /// Gives it memory. All of it is private: the guest then needs to convert only what it shares.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_memory(self, regions: &[Region]) -> Result<Launch<K, WithMemory>, SnpError> {
        let kernel = self.kernel;
        let regions = private::add_regions(kernel.memory(), regions)?;
        Ok(Launch { kernel, state: WithMemory { regions } })
    }
}

impl<K: Kernel> Launch<K, WithMemory> {
    /// Makes its CPUs, all that it will ever have: each one's state is measured.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn create_cpus(self, count: u8) -> Result<Launch<K, WithCpus<K::Cpu>>, SnpError> {
        let cpus = (0..count).map(|id| self.kernel.create_cpu(id)).collect::<Result<_, _>>()?;
        Ok(Launch { kernel: self.kernel, state: WithCpus { regions: self.state.regions, cpus } })
    }
}

impl<K: Kernel> Launch<K, WithCpus<K::Cpu>> {
    /// The CPUs, in their order.
    pub fn cpus(&self) -> &[K::Cpu] {
        &self.state.cpus
    }

    /// Sets the CPUs' states, and has the firmware take and measure the plan's pages. `cpuid` is the page of CPUID values.
    ///
    /// # Errors
    /// The firmware refuses the policy, a page, or a value of the CPUID page, which is named.
    pub fn measure(
        self,
        plan: &LaunchPlan,
        cpuid: &CpuidPage,
    ) -> Result<Launch<K, Measured<K::Cpu>>, SnpError> {
        let Self { kernel, state: WithCpus { regions, cpus } } = self;
        if plan.cpus().len() != cpus.len() {
            return Err(SnpError::CpuCount { planned: plan.cpus().len(), made: cpus.len() });
        }
        for ((cpu, state), id) in cpus.iter().zip(plan.cpus()).zip(0..) {
            kernel.set_cpu(cpu, id, state)?;
        }
        let start = kvm_sev_snp_launch_start { policy: plan.policy().bits(), ..Default::default() };
        let refused = |error: SevError| SnpError::start(error, plan.policy());
        retry(|| kernel.sev(Command::LaunchStart(&start))).map_err(refused)?;
        for range in plan.pages() {
            match range.kind() {
                PageKind::Cpuid => measure_cpuid(&*kernel, range, cpuid)?,
                _ => update(&*kernel, range, &mut range.content().to_vec())?,
            }
        }
        Ok(Launch { kernel, state: Measured { regions, cpus } })
    }
}

/// The firmware compares the values with the processor's. What it refuses it writes over with what it would take.
fn measure_cpuid<K: Kernel>(kernel: &K, range: &PageRange, values: &CpuidPage) -> Result<(), SnpError> {
    let mut bytes = values.as_bytes().to_vec();
    update(kernel, range, &mut bytes).map_err(|error| {
        let corrected = CpuidPage::read_from_bytes(&bytes).ok();
        let refused =
            corrected.map(|corrected| cpuid_page::differences(values, &corrected)).unwrap_or_default();
        if refused.is_empty() { error } else { SnpError::Cpuid(refused) }
    })
}

/// Has the firmware take a range of pages. `content` is what they hold, on whole pages of ours that KVM may write to.
fn update<K: Kernel>(kernel: &K, range: &PageRange, content: &mut Vec<u8>) -> Result<(), SnpError> {
    let mut source = PageBuffer::new(content)?;
    let mut command = kvm_sev_snp_launch_update {
        gfn_start: range.gpa() >> 12,
        // Pages that are zero have no source.
        uaddr: if range.kind() == PageKind::Zero { 0 } else { source.address() },
        len: source.len(),
        type_: range.kind().number(),
        ..Default::default()
    };
    // KVM takes as many pages as it gets to, and moves the start on.
    let mut retries = 0;
    let result = loop {
        let (before, result) = (command.len, kernel.sev(Command::LaunchUpdate(&mut command)));
        match result {
            Ok(()) if command.len == 0 => break Ok(()),
            Ok(()) if command.len < before => retries = 0,
            Ok(()) if retries >= MOST_RETRIES => break Err(SnpError::Stuck { name: range.name() }),
            Err(error) if !error.is_transient() || retries >= MOST_RETRIES => {
                break Err(SnpError::page(error, range.name(), command.gfn_start << 12));
            }
            Ok(()) | Err(_) => retries += 1,
        }
    };
    *content = source.take();
    result
}

impl<K: Kernel> Launch<K, Measured<K::Cpu>> {
    /// Ends the launch: KVM has the CPUs' states measured, and the firmware compares the digest with the ID block.
    ///
    /// # Errors
    /// The firmware refuses the ID block.
    pub fn finish(self, plan: &LaunchPlan) -> Result<Launched<K::Cpu>, SnpError> {
        let mut command = kvm_sev_snp_launch_finish { host_data: plan.host_data().0, ..Default::default() };
        let signed = plan.id_block();
        // Both live until the command is through.
        let block = signed.map(|signed| signed.block().as_bytes().to_vec());
        let authentication = signed.map(|signed| signed.authentication_bytes().to_vec());
        if let (Some(signed), Some(block), Some(authentication)) = (signed, &block, &authentication) {
            command.id_block_en = 1;
            command.id_block_uaddr = block.as_ptr() as u64;
            command.id_auth_uaddr = authentication.as_ptr() as u64;
            command.auth_key_en = u8::from(signed.has_author());
        }
        retry(|| self.kernel.sev(Command::LaunchFinish(&command))).map_err(SnpError::finish)?;
        let Measured { regions, cpus } = self.state;
        Ok(Launched { regions, cpus })
    }
}

/// Bytes on pages of their own, which KVM may write to.
struct PageBuffer {
    mapping: crate::unsafe_mapping::Mapping,
    len: usize,
}

impl PageBuffer {
    fn new(content: &[u8]) -> Result<Self, SnpError> {
        let failed = |errno| SnpError::Kernel("mmap", errno);
        let mut mapping = crate::unsafe_mapping::Mapping::zeros(content.len()).map_err(failed)?;
        mapping.fill(content).ok_or(SnpError::Kernel("mmap", Errno::E2BIG))?;
        Ok(Self { mapping, len: content.len() })
    }

    fn address(&self) -> u64 {
        self.mapping.address()
    }

    fn len(&self) -> u64 {
        self.mapping.size()
    }

    fn take(&mut self) -> Vec<u8> {
        let pages = (0..self.len).step_by(4096).filter_map(|offset| self.mapping.page(offset));
        let mut bytes: Vec<u8> = pages.flatten().collect();
        bytes.truncate(self.len);
        bytes
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
