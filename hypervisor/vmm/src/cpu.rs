//! Virtual CPUs.

mod cpuid;
mod prefault;
mod registers;
mod run;
pub mod state;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
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

impl CpuError {
    /// A request for CPU `vcpu` that was not made through kvm-ioctls.
    pub fn new(vcpu: u8, request: &'static str, errno: nix::errno::Errno) -> Self {
        Self { vcpu, request, source: kvm_ioctls::Error::new(errno as i32) }
    }
}

/// What is the same for all CPUs of a machine.
#[derive(Debug)]
pub struct CpuModel {
    supported: CpuId,
    count: u8,
    deadline_timer: bool,
    /// Whether the values must be those that the firmware for SEV-SNP takes.
    snp: bool,
    apic_bus_khz: u32,
}

/// KVM's emulated APIC bus runs at 1 GHz.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// The TDX module's at 25 MHz.
const TDX_APIC_BUS_KHZ: u32 = 25_000;

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
        Ok(Self { supported, count, deadline_timer, snp: false, apic_bus_khz: APIC_BUS_KHZ })
    }

    /// The same with the values that the firmware for SEV-SNP takes.
    #[must_use]
    pub fn for_snp(self) -> Self {
        Self { snp: true, ..self }
    }

    /// The same with the frequency that the TDX module gives APIC timers.
    #[must_use]
    pub fn for_tdx(self) -> Self {
        Self { apic_bus_khz: TDX_APIC_BUS_KHZ, ..self }
    }

    /// Makes CPU `id`. The first one needs [`start_at`]; the others wait for the first one's start-up interrupt,
    /// which KVM's APICs deliver.
    ///
    /// # Errors
    /// KVM refuses one of the requests.
    pub fn create(&self, vm: &VmFd, id: u8) -> Result<VcpuFd, CpuError> {
        let vcpu = Self::create_blank(vm, id)?;
        let tsc_khz = vcpu.get_tsc_khz().map_err(failed(id, "KVM_GET_TSC_KHZ"))?;
        let entries = self.table(id, tsc_khz)?;
        Self::set_table(&vcpu, id, &entries)?;
        Ok(vcpu)
    }

    /// Makes CPU `id`, which knows nothing of itself yet.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn create_blank(vm: &VmFd, id: u8) -> Result<VcpuFd, CpuError> {
        vm.create_vcpu(u64::from(id)).map_err(failed(id, "KVM_CREATE_VCPU"))
    }

    /// What CPU `id` is told of itself. Its TSC has this frequency in kHz.
    ///
    /// # Errors
    /// There are more values than KVM takes.
    pub fn table(&self, id: u8, tsc_khz: u32) -> Result<Vec<kvm_cpuid_entry2>, CpuError> {
        let topology = cpuid::Topology { id, count: self.count };
        let clocks = cpuid::Clocks { tsc_khz, apic_bus_khz: self.apic_bus_khz };
        let table = cpuid::for_guest(&self.supported, topology, clocks, self.deadline_timer);
        let entries = table.map_err(|_| too_large(id))?.as_slice().to_vec();
        Ok(if self.snp { snp::adjust_cpuid(&entries) } else { entries })
    }

    /// Tells CPU `id` about itself.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn set_table(vcpu: &VcpuFd, id: u8, entries: &[kvm_cpuid_entry2]) -> Result<(), CpuError> {
        let table = CpuId::from_entries(entries).map_err(|_| too_large(id))?;
        vcpu.set_cpuid2(&table).map_err(failed(id, "KVM_SET_CPUID2"))
    }
}

fn too_large(vcpu: u8) -> CpuError {
    failed(vcpu, "KVM_SET_CPUID2")(kvm_ioctls::Error::new(libc::E2BIG))
}

fn failed(vcpu: u8, request: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |source| CpuError { vcpu, request, source }
}
