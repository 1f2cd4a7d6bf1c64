//! The ways in which a machine gets to its first instruction.

use std::sync::Arc;

use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::GuestMemoryBackend;

use crate::attester::{Attester, Subject};
use crate::boot::{self, BootSource};
use crate::cpu;
use crate::irqchip::Message;
use crate::machine::MachineError;
use crate::measured::{MeasuredFiles, Placed, Planned};
use crate::memory::GuestMemory;
use crate::private::{KvmMemory, PrivateMemory, WithCpus};
use crate::simulated::{RunningModule, SoftwareLaunch, SoftwareLaunched};
use crate::snp::{self, KvmKernel, Launch, Launched};
use crate::tdx::{self, Interrupt, Requests};
use crate::unsafe_kernel;
use crate::wired::{Cpus, TrustDomain, failed};

/// What a machine starts from, as files.
pub(crate) enum Source {
    /// The kernel first.
    Direct(BootSource),
    /// stage0 first, by a plan.
    Measured(Box<MeasuredFiles>),
}

/// What does not need KVM is done.
pub(crate) enum Prepared {
    /// Everything is in memory.
    Direct(boot::Placed),
    /// There is a plan.
    Measured(Box<Planned>),
}

impl Source {
    /// Reads the files. `after_planning` sees a measured machine's plan.
    pub(crate) fn prepare(
        self,
        memory: &GuestMemory,
        after_planning: impl FnOnce(&mut Planned),
    ) -> Result<Prepared, MachineError> {
        Ok(match self {
            Self::Direct(source) => Prepared::Direct(boot::place(memory, source)?),
            Self::Measured(files) => {
                let mut planned = files.plan()?;
                after_planning(&mut planned);
                Prepared::Measured(Box::new(planned))
            }
        })
    }
}

/// A machine that only has to run.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) cpus: Vec<VcpuFd>,
    /// Memory beside RAM, which must live as long as the machine.
    pub(crate) placed: Vec<Placed>,
    /// RAM that is not the host's.
    pub(crate) private: Option<Arc<PrivateMemory>>,
    /// Who signs the guest's reports, where that is us.
    pub(crate) attester: Option<Arc<Attester>>,
    /// Who keeps the guest's registers, where that is us.
    pub(crate) module: Option<Arc<RunningModule>>,
    /// What only a trust domain asks for.
    pub(crate) requests: Option<Requests>,
}

impl Prepared {
    /// Gives memory and CPUs their first state.
    pub(crate) fn launch(
        self,
        vm: &Arc<VmFd>,
        cpus: Cpus,
        memory: &Arc<GuestMemory>,
    ) -> Result<Ready, MachineError> {
        match (self, cpus) {
            (Self::Direct(placed), Cpus::Ordinary(cpus)) => {
                if let Some(first) = cpus.first() {
                    cpu::start_at(first, placed.entry)?;
                }
                Ok(Ready { cpus, ..Ready::default() })
            }
            (Self::Measured(planned), Cpus::Ordinary(cpus)) => {
                let (placed, launched) = simulate(&planned, vm, memory, &cpus)?;
                let Planned { plan, signer, .. } = *planned;
                let (subject, module) = match launched {
                    SoftwareLaunched::Processor(identity) => {
                        (Subject::guest(&identity, plan.id_block()), None)
                    }
                    SoftwareLaunched::Module(module) => (Subject::Domain(Arc::clone(&module)), Some(module)),
                };
                let attester = Some(Arc::new(Attester::new(subject, signer)));
                Ok(Ready { cpus, placed, attester, module, ..Ready::default() })
            }
            (Self::Measured(planned), Cpus::Snp(launch, image)) => {
                launch_snp(&planned, vm, *launch, image, memory)
            }
            (Self::Measured(planned), Cpus::Tdx(domain)) => launch_tdx(&planned, vm, *domain, memory),
            (Self::Direct(_), Cpus::Snp(..) | Cpus::Tdx(_)) => Err(MachineError::Unmeasured),
        }
    }
}

/// Carries a plan out on a plain machine, under the eyes of a software model.
fn simulate(
    planned: &Planned,
    vm: &VmFd,
    memory: &Arc<GuestMemory>,
    cpus: &[VcpuFd],
) -> Result<(Vec<Placed>, SoftwareLaunched), MachineError> {
    let mut launch = SoftwareLaunch::start(&planned.plan);
    let mut rom = planned.rom()?;
    planned.write_pages(memory, &mut rom, |gpa, kind, page| launch.add_page(gpa, kind, page))?;
    let placed: Vec<Placed> = rom.into_iter().chain(planned.window()?).collect();
    // RAM has the first slots.
    show(vm, &placed, memory.iter().count())?;
    let mut states = Vec::with_capacity(cpus.len());
    for ((vcpu, state), id) in cpus.iter().zip(planned.plan.cpus()).zip(0..) {
        cpu::state::set(vcpu, id, state)?;
        states.push(cpu::state::get(vcpu, id)?);
    }
    let launched = launch.finish(&planned.plan, &states, memory)?;
    Ok((placed, launched))
}

/// Has the security processor carry a plan out.
fn launch_snp(
    planned: &Planned,
    vm: &Arc<VmFd>,
    launch: Launch<KvmKernel, WithCpus<VcpuFd>>,
    image: Placed,
    memory: &GuestMemory,
) -> Result<Ready, MachineError> {
    let mut placed = planned.window()?;
    // RAM and the image have the first slots.
    show(vm, &placed, memory.iter().count() + 1)?;
    placed.push(image);
    let cpuid = match launch.cpus().first() {
        Some(first) => first
            .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_CPUID2"))?
            .as_slice()
            .to_vec(),
        None => Vec::new(),
    };
    let page = snp::build_cpuid_page(&cpuid)?;
    let Launched { regions, cpus } = launch.measure(&planned.plan, &page)?.finish(&planned.plan)?;
    let private = Arc::new(PrivateMemory::new(regions, Box::new(KvmMemory(Arc::clone(vm)))));
    Ok(Ready { cpus, placed, private: Some(private), ..Ready::default() })
}

/// Has the TDX module carry a plan out.
fn launch_tdx(
    planned: &Planned,
    vm: &Arc<VmFd>,
    domain: TrustDomain,
    memory: &GuestMemory,
) -> Result<Ready, MachineError> {
    let TrustDomain { launch, image, quotes } = domain;
    let mut placed = planned.window()?;
    // RAM and the image have the first slots.
    show(vm, &placed, memory.iter().count() + 1)?;
    placed.push(image);
    let tdx::Launched { regions, cpus, requests } = launch.measure(&planned.plan)?.finish()?;
    let private = Arc::new(PrivateMemory::new(regions, Box::new(KvmMemory(Arc::clone(vm)))));
    let requests = Requests::new(quotes, requests, interrupt(Arc::clone(vm)));
    Ok(Ready { cpus, placed, private: Some(private), requests: Some(requests), ..Ready::default() })
}

/// Sends interrupts to CPUs as messages. One that KVM does not take is lost: the guest looks by itself, only later.
fn interrupt(vm: Arc<VmFd>) -> Arc<Interrupt> {
    Arc::new(move |cpu, vector| {
        let Message { address, data } = Message::for_cpu(cpu, vector);
        let message = kvm_bindings::kvm_msi { address_lo: address, data, ..Default::default() };
        let _ = vm.signal_msi(message);
    })
}

/// Shows mappings to the guest, from a slot on.
fn show(vm: &VmFd, placed: &[Placed], first_slot: usize) -> Result<(), MachineError> {
    for (placed, slot) in placed.iter().zip(first_slot..) {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        unsafe_kernel::add_mapping(vm, slot, placed.gpa, &placed.mapping)
            .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}
