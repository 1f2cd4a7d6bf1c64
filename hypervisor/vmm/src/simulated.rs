//! Software models of the security processor and of the TDX module, for machines without the hardware. They keep no secret
//! from anybody.

mod module;

use std::sync::Arc;

use nacre_devices::SharedMemory;
use nacre_launch::{CpuState, HostData, LaunchDigest, LaunchPlan, Measurement, Measurer, PageKind, Policy};

use crate::memory::GuestMemory;

pub use module::{RunningModule, SoftwareModule};

/// The memory of a simulated machine.
#[derive(Debug)]
pub struct AllShared;

impl SharedMemory for AllShared {
    fn is_shared(&self, _address: u64, _length: u64) -> bool {
        true
    }
}

/// A launch that the model carries out which a plan is for.
#[derive(Debug)]
pub enum SoftwareLaunch {
    /// The security processor's.
    Processor(SoftwareProcessor),
    /// The TDX module's.
    Module(SoftwareModule),
}

/// A guest that a model has launched.
#[derive(Debug)]
pub enum SoftwareLaunched {
    /// By the security processor's, which needs to know no more about it.
    Processor(Identity),
    /// By the TDX module's, which goes on with it.
    Module(Arc<RunningModule>),
}

impl SoftwareLaunch {
    /// Begins a launch.
    pub fn start(plan: &LaunchPlan) -> Self {
        match plan.measurer() {
            Measurer::Firmware => Self::Processor(SoftwareProcessor::start(plan.policy())),
            Measurer::TdxModule => Self::Module(SoftwareModule::default()),
        }
    }

    /// Takes the next page.
    pub fn add_page(&mut self, gpa: u64, kind: PageKind, page: &[u8; 4096]) {
        match self {
            Self::Processor(processor) => processor.update(gpa, kind, page),
            Self::Module(module) => module.add_page(gpa, kind, page),
        }
    }

    /// Takes the CPUs' states, as KVM has them, and ends the launch.
    ///
    /// # Errors
    /// What was launched is not what was planned.
    pub fn finish(
        self,
        plan: &LaunchPlan,
        cpus: &[CpuState],
        memory: &Arc<GuestMemory>,
    ) -> Result<SoftwareLaunched, SoftwareProcessorError> {
        Ok(match self {
            Self::Processor(processor) => SoftwareLaunched::Processor(processor.finish(plan, cpus)?),
            Self::Module(module) => {
                SoftwareLaunched::Module(Arc::new(module.finish(plan, Arc::clone(memory))?))
            }
        })
    }
}

/// A launch that the security processor's model carries out: it sees what the firmware would see, page by page.
#[derive(Debug)]
pub struct SoftwareProcessor {
    policy: Policy,
    digest: LaunchDigest,
}

/// What a launched guest is, for its reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What was measured.
    pub measurement: Measurement,
    /// The guest's policy.
    pub policy: Policy,
    /// What the host said about the guest.
    pub host_data: HostData,
}

/// Why a model refuses a launch.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareProcessorError {
    /// What was launched is not what was planned: a mistake of ours.
    #[error("the launch was measured as {actual}, the plan says {expected}")]
    Measurement {
        /// The plan's.
        expected: Measurement,
        /// The model's.
        actual: Measurement,
    },
    /// The ID block is for another launch.
    #[error("the ID block is for measurement {expected}, the launch has {actual}")]
    IdBlock {
        /// The block's.
        expected: Measurement,
        /// The launch's.
        actual: Measurement,
    },
}

impl SoftwareProcessor {
    /// Begins a launch.
    pub fn start(policy: Policy) -> Self {
        Self { policy, digest: LaunchDigest::new() }
    }

    /// Takes the next page.
    pub fn update(&mut self, gpa: u64, kind: PageKind, page: &[u8; 4096]) {
        self.digest.add_page(gpa, kind, page);
    }

    /// Takes the CPUs' states, as KVM has them, and ends the launch.
    ///
    /// # Errors
    /// The digest is not the plan's, or not the ID block's.
    pub fn finish(self, plan: &LaunchPlan, cpus: &[CpuState]) -> Result<Identity, SoftwareProcessorError> {
        let digest = self.digest.into_cpus();
        let actual = cpus.iter().fold(digest, |digest, cpu| digest.add_cpu(cpu)).finish();
        let expected = plan.measurement();
        if actual != expected {
            return Err(SoftwareProcessorError::Measurement { expected, actual });
        }
        if let Some(signed) = plan.id_block() {
            let expected = signed.block().measurement();
            if actual != expected {
                return Err(SoftwareProcessorError::IdBlock { expected, actual });
            }
        }
        Ok(Identity { measurement: actual, policy: self.policy, host_data: plan.host_data() })
    }
}

#[cfg(test)]
pub use module::tests::module;

#[cfg(test)]
mod tests {
    use nacre_launch::Tee;

    use super::*;
    use crate::stand_in;

    fn plan() -> LaunchPlan {
        stand_in::plan(Tee::Simulated, 2)
    }

    /// Launches what the plan says, but for one bit of the page that is there.
    fn launched(plan: &LaunchPlan, changed: Option<u64>, cpus: &[CpuState]) -> Result<Identity, String> {
        let mut processor = SoftwareProcessor::start(plan.policy());
        for range in plan.pages() {
            for (gpa, page) in range.pages() {
                let mut page = *page;
                page[4095] ^= u8::from(changed == Some(gpa));
                processor.update(gpa, range.kind(), &page);
            }
        }
        processor.finish(plan, cpus).map_err(|error| error.to_string())
    }

    #[test]
    fn a_launch_as_planned_has_the_plans_measurement() {
        let plan = plan().with_host_data(HostData([7; 32]));
        let identity = launched(&plan, None, plan.cpus()).unwrap();
        assert_eq!((identity.measurement, identity.host_data), (plan.measurement(), HostData([7; 32])));
    }

    #[test]
    fn a_bit_of_a_measured_page_that_is_not_as_planned_ends_the_launch() {
        let plan = plan();
        let kinds = plan.pages().iter().filter(|range| range.kind() == PageKind::Normal);
        for range in kinds {
            let error = launched(&plan, Some(range.gpa()), plan.cpus()).unwrap_err();
            assert!(error.contains(&plan.measurement().to_string()), "{error}");
        }
    }

    #[test]
    fn a_cpu_that_is_missing_or_in_another_state_ends_the_launch() {
        let plan = plan();
        let mut cpus = plan.cpus().to_vec();
        assert!(launched(&plan, None, &cpus[..1]).is_err());
        cpus[1].rip += 1;
        assert!(launched(&plan, None, &cpus).is_err());
    }
}
