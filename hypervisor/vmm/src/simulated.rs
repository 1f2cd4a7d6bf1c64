//! A software model of the security processor, for machines without the hardware. It keeps no secret from anybody.

use nacre_devices::SharedMemory;
use nacre_launch::{CpuState, HostData, LaunchDigest, LaunchPlan, Measurement, PageKind, Policy};

/// The memory of a simulated machine.
#[derive(Debug)]
pub struct AllShared;

impl SharedMemory for AllShared {
    fn is_shared(&self, _address: u64, _length: u64) -> bool {
        true
    }
}

/// A launch that the model carries out: it sees what the firmware would see, page by page.
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

/// Why the model refuses a launch.
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
