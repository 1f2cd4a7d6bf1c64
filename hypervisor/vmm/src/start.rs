//! The ways in which a machine gets to its first instruction.

use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::GuestMemoryBackend;

use crate::boot::{self, BootSource};
use crate::cpu;
use crate::machine::MachineError;
use crate::measured::{MeasuredFiles, Placed, Planned};
use crate::memory::GuestMemory;
use crate::simulated::SoftwareProcessor;
use crate::unsafe_kernel;

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

impl Prepared {
    /// Gives memory and CPUs their first state. What comes back must live as long as the machine.
    pub(crate) fn launch(
        self,
        vm: &VmFd,
        memory: &GuestMemory,
        cpus: &[VcpuFd],
    ) -> Result<Vec<Placed>, MachineError> {
        match self {
            Self::Direct(placed) => {
                if let Some(first) = cpus.first() {
                    cpu::start_at(first, placed.entry)?;
                }
                Ok(Vec::new())
            }
            Self::Measured(planned) => simulate(&planned, vm, memory, cpus),
        }
    }
}

/// Carries a plan out on a plain machine, under the eyes of the software model.
fn simulate(
    planned: &Planned,
    vm: &VmFd,
    memory: &GuestMemory,
    cpus: &[VcpuFd],
) -> Result<Vec<Placed>, MachineError> {
    let mut processor = SoftwareProcessor::start(planned.plan.policy());
    let mut rom = planned.rom()?;
    planned.write_pages(memory, &mut rom, |gpa, kind, page| processor.update(gpa, kind, page))?;
    let placed: Vec<Placed> = rom.into_iter().chain(planned.window()?).collect();
    // RAM has the first slots.
    for (placed, slot) in placed.iter().zip(memory.iter().count()..) {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        unsafe_kernel::add_mapping(vm, slot, placed.gpa, &placed.mapping)
            .map_err(|source| MachineError::Kvm { request: "KVM_SET_USER_MEMORY_REGION", source })?;
    }
    let mut states = Vec::with_capacity(cpus.len());
    for ((vcpu, state), id) in cpus.iter().zip(planned.plan.cpus()).zip(0..) {
        cpu::state::set(vcpu, id, state)?;
        states.push(cpu::state::get(vcpu, id)?);
    }
    processor.finish(&planned.plan, &states)?;
    Ok(placed)
}
