//! Virtual CPUs.

mod cpuid;
mod prefault;
mod registers;
mod run;
pub mod state;

use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use crate::snp;

pub use prefault::{prefault, share};
pub use registers::start_at;
pub use run::{Exits, run};

/// Why a virtual CPU can't be made: the KVM request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{request} failed for vCPU {vcpu}")]
pub struct CpuError {
    vcpu: u8,
    request: &'static str,
    #[source]
    source: kvm_ioctls::Error,
}

/// What is the same for all CPUs of a machine.
#[derive(Debug)]
pub struct CpuModel {
    supported: CpuId,
    count: u8,
    deadline_timer: bool,
    /// Whether the values must be those that the firmware for SEV-SNP takes.
    snp: bool,
}

impl CpuModel {
    /// Asks KVM what the host's CPUs can do, for a machine with `count` CPUs.
    ///
    /// # Errors
    /// `KVM_GET_SUPPORTED_CPUID` fails.
    pub fn of_host(kvm: &Kvm, count: u8) -> Result<Self, CpuError> {
        let supported = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(failed(0, "KVM_GET_SUPPORTED_CPUID"))?;
        // Present on the API, not in the list: KVM_CAP_TSC_DEADLINE_TIMER goes with the in-kernel APIC.
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self { supported, count, deadline_timer, snp: false })
    }

    /// The same with the values that the firmware for SEV-SNP takes.
    #[must_use]
    pub fn for_snp(self) -> Self {
        Self { snp: true, ..self }
    }

    /// Makes CPU `id`. The first one needs [`start_at`]; the others wait for the first one's start-up interrupt,
    /// which KVM's APICs deliver.
    ///
    /// # Errors
    /// KVM refuses one of the requests.
    pub fn create(&self, vm: &VmFd, id: u8) -> Result<VcpuFd, CpuError> {
        let vcpu = vm.create_vcpu(u64::from(id)).map_err(failed(id, "KVM_CREATE_VCPU"))?;
        let tsc_khz = vcpu.get_tsc_khz().map_err(failed(id, "KVM_GET_TSC_KHZ"))?;
        let topology = cpuid::Topology { id, count: self.count };
        let too_large = |_| failed(id, "KVM_SET_CPUID2")(kvm_ioctls::Error::new(libc::E2BIG));
        let mut table =
            cpuid::for_guest(&self.supported, topology, tsc_khz, self.deadline_timer).map_err(too_large)?;
        if self.snp {
            table = CpuId::from_entries(&snp::adjust_cpuid(table.as_slice())).map_err(too_large)?;
        }
        vcpu.set_cpuid2(&table).map_err(failed(id, "KVM_SET_CPUID2"))?;
        Ok(vcpu)
    }
}

fn failed(vcpu: u8, request: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |source| CpuError { vcpu, request, source }
}
