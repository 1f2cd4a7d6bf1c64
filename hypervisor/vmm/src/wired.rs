//! What KVM makes of a machine before its first state is known.

use std::fs::File;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nacre_control::Irqchip;
use nacre_stage0_abi::{AddressRange, layout as stage0_layout};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::cpu::{CpuError, CpuModel};
use crate::devices::{Devices, MmioBus};
use crate::irqchip::{self, IoApic};
use crate::machine::MachineError;
use crate::measured::{MeasuredError, Placed};
use crate::memory::GuestMemory;
use crate::private::{Initialised, Region, WithCpus};
use crate::reports::Reporter;
use crate::snp::certificates::Certificates;
use crate::snp::{self, KvmKernel, Launch, SnpError};
use crate::tdx::{self, Identity, Quotes};
use crate::unsafe_mapping::Mapping;
use crate::{layout, unsafe_kernel};

const KVM_API_VERSION: i32 = 12;

/// The kinds of machine that KVM makes for us.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Memory that the host can read.
    Ordinary,
    /// An SEV-SNP guest: the security processor's device, and certificates for reports.
    Snp(Option<File>, Option<Arc<Certificates>>),
    /// A trust domain of Intel TDX: what is said of it, and who makes its quotes.
    Tdx(Identity, Arc<Quotes>),
}

/// What a machine should be, beside its memory and devices.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) kind: Kind,
    pub(crate) irqchip: Irqchip,
    pub(crate) vcpus: u8,
    pub(crate) reporter: &'a Reporter,
}

/// A machine with its CPUs, which have no state yet.
pub(crate) struct Wired {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) bus: Arc<MmioBus>,
    pub(crate) cpus: Cpus,
}

/// The CPUs, with what is still to do with them.
pub(crate) enum Cpus {
    /// Of an ordinary machine.
    Ordinary(Vec<VcpuFd>),
    /// Of an SEV-SNP guest, and the shared side of the place for stage0's image.
    Snp(Box<Launch<KvmKernel, WithCpus<VcpuFd>>>, Placed),
    /// Of a trust domain.
    Tdx(Box<TrustDomain>),
}

/// A trust domain that has its CPUs.
pub(crate) struct TrustDomain {
    pub(crate) launch: tdx::Launch<tdx::KvmKernel, WithCpus<VcpuFd>>,
    /// The shared side of the place for stage0's image.
    pub(crate) image: Placed,
    pub(crate) quotes: Arc<Quotes>,
}

impl Wired {
    pub(crate) fn new(
        kvm: &Kvm,
        wishes: Wishes<'_>,
        memory: &GuestMemory,
        devices: &mut Devices,
    ) -> Result<Self, MachineError> {
        if kvm.get_api_version() != KVM_API_VERSION {
            return Err(MachineError::NotKvm);
        }
        let Wishes { kind, irqchip, vcpus, reporter } = wishes;
        let interrupts = |vm: &Arc<VmFd>| add_interrupts(vm, irqchip, reporter);
        match kind {
            Kind::Ordinary => Self::ordinary(kvm, memory, devices, vcpus, interrupts),
            Kind::Snp(sev, certificates) => {
                let begin = |launch: &Launch<KvmKernel, Initialised>| match certificates {
                    Some(certificates) if !launch.hand_over_certificates()? => {
                        certificates.not_asked_for();
                        Ok(())
                    }
                    _ => Ok(()),
                };
                Self::snp(kvm, sev, begin, memory, devices, vcpus, interrupts)
            }
            Kind::Tdx(identity, quotes) => {
                Self::tdx(kvm, &identity, quotes, memory, devices, vcpus, reporter)
            }
        }
    }

    fn ordinary(
        kvm: &Kvm,
        memory: &GuestMemory,
        devices: &mut Devices,
        vcpus: u8,
        interrupts: impl Fn(&Arc<VmFd>) -> Result<Option<IoApic>, MachineError>,
    ) -> Result<Self, MachineError> {
        let vm = Arc::new(kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?);
        let ioapic = interrupts(&vm)?;
        for (region, slot) in memory.iter().zip(0..) {
            unsafe_kernel::add_memory(&vm, slot, region.start_addr().0, region)
                .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let bus = Arc::new(devices.connect(&vm, ioapic)?);
        let model = CpuModel::of_host(kvm, vcpus)?;
        let cpus = (0..vcpus).map(|id| model.create(&vm, id)).collect::<Result<_, CpuError>>()?;
        Ok(Self { vm, bus, cpus: Cpus::Ordinary(cpus) })
    }

    fn snp(
        kvm: &Kvm,
        sev: Option<File>,
        begin: impl FnOnce(&Launch<KvmKernel, Initialised>) -> Result<(), SnpError>,
        memory: &GuestMemory,
        devices: &mut Devices,
        vcpus: u8,
        interrupts: impl Fn(&Arc<VmFd>) -> Result<Option<IoApic>, MachineError>,
    ) -> Result<Self, MachineError> {
        let vm = Arc::new(snp::create_vm(kvm)?);
        let model = CpuModel::of_host(kvm, vcpus)?.for_snp();
        let kernel = Arc::new(KvmKernel::new(Arc::clone(&vm), sev, model));
        let launch = Launch::begin(kernel)?;
        begin(&launch)?;
        let ioapic = interrupts(&vm)?;
        let (image, regions) = two_sided(memory)?;
        let launch = launch.add_memory(&regions)?;
        let bus = Arc::new(devices.connect(&vm, ioapic)?);
        let launch = launch.create_cpus(vcpus)?;
        Ok(Self { vm, bus, cpus: Cpus::Snp(Box::new(launch), image) })
    }

    fn tdx(
        kvm: &Kvm,
        identity: &Identity,
        quotes: Arc<Quotes>,
        memory: &GuestMemory,
        devices: &mut Devices,
        vcpus: u8,
        reporter: &Reporter,
    ) -> Result<Self, MachineError> {
        let vm = Arc::new(tdx::create_vm(kvm)?);
        let model = CpuModel::of_host(kvm, vcpus)?.for_tdx();
        let kernel = Arc::new(tdx::KvmKernel::new(Arc::clone(&vm), model));
        let launch = tdx::Launch::begin(kernel)?.initialise(identity, vcpus)?;
        let (image, regions) = two_sided(memory)?;
        let launch = launch.add_memory(&regions)?;
        // The launch has split the interrupt controllers: TDX has nothing else.
        let ioapic = IoApic::new(Arc::clone(&vm), reporter.clone());
        let bus = Arc::new(devices.connect(&vm, Some(ioapic))?);
        let launch = launch.create_cpus(vcpus)?;
        Ok(Self { vm, bus, cpus: Cpus::Tdx(Box::new(TrustDomain { launch, image, quotes })) })
    }
}

/// The place of stage0's image, which is no RAM, and all memory with two sides.
fn two_sided(memory: &GuestMemory) -> Result<(Placed, Vec<Region>), MachineError> {
    let image = Placed {
        gpa: stage0_layout::IMAGE_END - stage0_layout::IMAGE_LIMIT,
        mapping: Mapping::zeros(usize::try_from(stage0_layout::IMAGE_LIMIT).unwrap_or(usize::MAX))
            .map_err(|errno| MeasuredError::Map("first code", errno))?,
    };
    let mut regions: Vec<Region> = memory
        .iter()
        .filter_map(|region| {
            let range = AddressRange::new(region.start_addr().0, region.len())?;
            Some(Region { range, shared_address: region.as_ptr() as u64 })
        })
        .collect();
    let range = AddressRange::new(image.gpa, image.mapping.size());
    regions.extend(range.map(|range| Region { range, shared_address: image.mapping.address() }));
    Ok((image, regions))
}

/// Interrupt controllers, and KVM's own three pages. An IOAPIC that is ours comes back.
fn add_interrupts(
    vm: &Arc<VmFd>,
    irqchip: Irqchip,
    reporter: &Reporter,
) -> Result<Option<IoApic>, MachineError> {
    vm.set_tss_address(layout::KVM_TSS).map_err(failed("KVM_SET_TSS_ADDR"))?;
    irqchip::create(vm, irqchip, reporter)
}

pub(crate) fn failed(request: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { request, source }
}
