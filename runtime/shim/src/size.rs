//! How large a pod's VM is.

use std::collections::HashMap;

use nacre_configuration::Configuration;
use nacre_configuration::sections::Confidential;
use nacre_configuration::values::Tee;
use oci_spec::runtime::Spec;

use crate::annotations;
use crate::spec::SpecError;

/// CPUs and memory of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
}

/// What a pod asks for; `None` where it has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Limits {
    memory: Option<i64>,
    quota: Option<i64>,
    period: Option<u64>,
}

impl Size {
    /// The size for a sandbox with this spec: the annotations that containerd's CRI puts on it, else its own
    /// limits, else the configuration's defaults; each dimension for itself.
    ///
    /// # Errors
    /// More memory than the configuration allows.
    pub fn of(spec: &Spec, configuration: &Configuration) -> Result<Self, SpecError> {
        let annotated = spec.annotations().as_ref().map(Limits::annotated).unwrap_or_default();
        let own = Limits::own(spec);
        let limits = Limits {
            memory: annotated.memory.or(own.memory),
            quota: annotated.quota.or(own.quota),
            period: annotated.period.or(own.period),
        };
        limits.size(configuration)
    }
}

impl Limits {
    /// From <https://github.com/containerd/containerd/blob/main/internal/cri/annotations/annotations.go>.
    fn annotated(annotations: &HashMap<String, String>) -> Self {
        fn number<T: std::str::FromStr>(annotations: &HashMap<String, String>, key: &str) -> Option<T> {
            annotations.get(key)?.parse().ok()
        }
        Self {
            memory: number(annotations, annotations::SANDBOX_MEMORY).filter(|limit| *limit > 0),
            quota: number(annotations, annotations::SANDBOX_CPU_QUOTA).filter(|quota| *quota > 0),
            period: number(annotations, annotations::SANDBOX_CPU_PERIOD).filter(|period| *period > 0),
        }
    }

    fn own(spec: &Spec) -> Self {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let memory = resources.and_then(|resources| resources.memory().as_ref());
        let cpu = resources.and_then(|resources| resources.cpu().as_ref());
        Self {
            memory: memory.and_then(|memory| memory.limit()).filter(|limit| *limit > 0),
            quota: cpu.and_then(|cpu| cpu.quota()).filter(|quota| *quota > 0),
            period: cpu.and_then(|cpu| cpu.period()).filter(|period| *period > 0),
        }
    }

    fn size(self, configuration: &Configuration) -> Result<Size, SpecError> {
        let vm = &configuration.vm;
        let wanted = match self.quota.and_then(|quota| u64::try_from(quota).ok()) {
            Some(quota) => quota.div_ceil(self.period.unwrap_or(100_000)).max(1),
            None => vm.default_vcpus.get().into(),
        };
        let memory = self.memory.and_then(|limit| u64::try_from(limit).ok());
        let memory_mib = match memory {
            Some(limit) => limit.div_ceil(1 << 20) + u64::from(vm.memory_overhead_mib.get()),
            None => vm.default_memory_mib.get().into(),
        };
        let most = vm.max_memory_mib.get();
        let memory_mib = u32::try_from(memory_mib)
            .ok()
            .filter(|mib| *mib <= most)
            .ok_or(SpecError::TooMuchMemory { wanted_mib: memory_mib, most_mib: most })?;
        let host = std::thread::available_parallelism().map_or(u64::MAX, |count| count.get() as u64);
        let vcpus = wanted.min(host).min(vm.max_vcpus.get().into()).min(MOST_VCPUS);
        let size =
            Size { vcpus: u8::try_from(vcpus).unwrap_or(1), memory_mib: memory_mib.max(LEAST_MEMORY_MIB) };
        if vm.tee == Tee::None { Ok(size) } else { size.measured(&configuration.confidential) }
    }
}

impl Size {
    /// The size that a confidential machine gets, whose measurement must be one of few.
    fn measured(self, confidential: &Confidential) -> Result<Self, SpecError> {
        // What is beyond the list gets the most of it: a CPU limit is no promise.
        let vcpus = confidential.vcpus.round_up(self.vcpus.into());
        let vcpus = vcpus.unwrap_or_else(|| confidential.vcpus.largest());
        let memory = confidential.memory_mib.round_up(self.memory_mib.into());
        let memory_mib = memory.ok_or_else(|| SpecError::TooMuchMemory {
            wanted_mib: self.memory_mib.into(),
            most_mib: confidential.memory_mib.largest(),
        })?;
        Ok(Self { vcpus: u8::try_from(vcpus).unwrap_or(1), memory_mib })
    }
}

/// The limits of [`nacre_control::VmConfig`].
const MOST_VCPUS: u64 = 64;
const LEAST_MEMORY_MIB: u32 = 64;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing(None, None, None, 1, 256)]
    #[case::memory_only(Some(128 << 20), None, None, 1, 192)]
    #[case::part_of_a_mebibyte((100 << 20) + 1, None, None, 1, 165)]
    #[case::cpu_only(None, Some(50_000), Some(100_000), 1, 256)]
    fn a_missing_limit_falls_back_to_the_default(
        #[case] memory: impl Into<Option<i64>>,
        #[case] quota: Option<i64>,
        #[case] period: Option<u64>,
        #[case] vcpus: u8,
        #[case] memory_mib: u32,
    ) {
        let limits = Limits { memory: memory.into(), quota, period };
        let size = limits.size(&Configuration::default()).unwrap();
        assert_eq!(size, Size { vcpus, memory_mib });
    }

    #[test]
    fn the_pods_annotations_count_more_than_the_pause_containers_own_limits() {
        let annotations = HashMap::from([(annotations::SANDBOX_MEMORY.into(), (512 << 20).to_string())]);
        let mut spec = Spec::default();
        spec.set_annotations(Some(annotations));
        assert_eq!(Size::of(&spec, &Configuration::default()).unwrap().memory_mib, 576);
    }

    #[rstest]
    #[case::cpus(Some(3 * 100_000), None, 4, 256)]
    #[case::memory(None, Some(300 << 20), 1, 512)]
    fn a_confidential_machine_gets_the_next_measured_size(
        #[case] quota: Option<i64>,
        #[case] memory: Option<i64>,
        #[case] vcpus: u8,
        #[case] memory_mib: u32,
    ) {
        let mut configuration = Configuration::default();
        configuration.vm.tee = Tee::Simulated;
        let size = Limits { memory, quota, period: None }.size(&configuration).unwrap();
        // The host of this test may have fewer CPUs.
        let host = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        assert_eq!(size.memory_mib, memory_mib);
        assert!(size.vcpus == vcpus || host < 3 && size.vcpus.is_power_of_two(), "{size:?}");
    }

    #[test]
    fn more_than_the_most_is_refused_with_both_numbers() {
        let limits = Limits { memory: Some(1 << 40), ..Default::default() };
        let error = limits.size(&Configuration::default()).unwrap_err().to_string();
        assert!(error.contains("1048640") && error.contains("131072"), "{error}");
    }
}
