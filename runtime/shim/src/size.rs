//! How large a pod's VM is.

use std::collections::HashMap;

use nacre_configuration::Configuration;
use nacre_configuration::sections::Confidential;
use nacre_configuration::values::Tee;
use oci_spec::runtime::Spec;

use crate::annotations;
use crate::host_cgroup::Limits as HostLimits;
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
    shares: Option<u64>,
}

impl Size {
    /// The size for a sandbox with this spec: the annotations that containerd's CRI puts on it, else its own
    /// limits, else the configuration's defaults; each dimension for itself. It stays below the limits of the pod's
    /// control group: a VM that outgrows them would be killed.
    ///
    /// # Errors
    /// More memory than the configuration allows, or a control group without room for the smallest VM.
    pub fn of(spec: &Spec, configuration: &Configuration) -> Result<Self, SpecError> {
        let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        Self::on(spec, configuration, &HostLimits::of(cgroup))
    }

    fn on(spec: &Spec, configuration: &Configuration, host: &HostLimits) -> Result<Self, SpecError> {
        let annotated = spec.annotations().as_ref().map(Limits::annotated).unwrap_or_default();
        let own = Limits::own(spec);
        let limits = Limits {
            memory: annotated.memory.or(own.memory),
            quota: annotated.quota.or(own.quota),
            period: annotated.period.or(own.period),
            shares: annotated.shares,
        };
        limits.size(configuration, host)
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
            shares: number(annotations, annotations::SANDBOX_CPU_SHARES).filter(|shares| *shares > 0),
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
            // Of a container without a pod they are a weight, not a request.
            shares: None,
        }
    }

    fn size(self, configuration: &Configuration, host: &HostLimits) -> Result<Size, SpecError> {
        let wanted =
            Size { vcpus: self.vcpus(configuration, host), memory_mib: self.memory_mib(configuration)? };
        if configuration.vm.tee == Tee::None {
            return wanted.within(configuration, host);
        }
        wanted.measured(&configuration.confidential)?.within(configuration, host)
    }

    fn vcpus(self, configuration: &Configuration, host: &HostLimits) -> u8 {
        let vm = &configuration.vm;
        let wanted = match (self.quota.and_then(|quota| u64::try_from(quota).ok()), self.shares) {
            (Some(quota), _) => quota.div_ceil(self.period.unwrap_or(DEFAULT_PERIOD)).max(1),
            // No limit, but so much is requested.
            (None, Some(shares)) => shares.div_ceil(SHARES_OF_A_CPU).max(vm.default_vcpus.get().into()),
            (None, None) => vm.default_vcpus.get().into(),
        };
        let there = std::thread::available_parallelism().map_or(u64::MAX, |count| count.get() as u64);
        let most = [there, vm.max_vcpus.get().into(), MOST_VCPUS, host.cpus.unwrap_or(u64::MAX)];
        let vcpus = most.into_iter().fold(wanted, u64::min);
        u8::try_from(vcpus).unwrap_or(1)
    }

    fn memory_mib(self, configuration: &Configuration) -> Result<u32, SpecError> {
        let vm = &configuration.vm;
        let asked = self.memory.and_then(|limit| u64::try_from(limit).ok());
        let wanted_mib = match asked {
            Some(limit) => limit.div_ceil(MIB) + u64::from(vm.memory_overhead_mib.get()),
            None => vm.default_memory_mib.get().into(),
        };
        let most_mib = vm.max_memory_mib.get();
        u32::try_from(wanted_mib)
            .ok()
            .filter(|mib| *mib <= most_mib)
            .map(|mib| mib.max(LEAST_MEMORY_MIB))
            .ok_or(SpecError::TooMuchMemory { wanted_mib, most_mib })
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

    /// The size, or as much memory as the pod's control group has room for.
    fn within(self, configuration: &Configuration, host: &HostLimits) -> Result<Self, SpecError> {
        let Some(limit) = &host.memory else { return Ok(self) };
        let left_mib = (limit.bytes - limit.bytes / PAGE_TABLES) / MIB;
        let left_mib = left_mib.saturating_sub(configuration.vm.host_overhead_mib.get().into());
        if u64::from(self.memory_mib) <= left_mib {
            return Ok(self);
        }
        let left = u32::try_from(left_mib).unwrap_or(u32::MAX);
        let (memory_mib, least_mib) = if configuration.vm.tee == Tee::None {
            (Some(left).filter(|left| *left >= LEAST_MEMORY_MIB), LEAST_MEMORY_MIB)
        } else {
            let steps = &configuration.confidential.memory_mib;
            (steps.round_down(left), steps.smallest())
        };
        let memory_mib = memory_mib.ok_or_else(|| SpecError::CgroupTooSmall {
            group: limit.group.clone(),
            limit_mib: limit.bytes / MIB,
            left_mib,
            least_mib,
        })?;
        Ok(Self { memory_mib, ..self })
    }
}

const MIB: u64 = 1 << 20;
/// In microseconds: the kernel's, where a specification has none.
const DEFAULT_PERIOD: u64 = 100_000;
const SHARES_OF_A_CPU: u64 = 1024;
/// A guest's page needs eight bytes in the VMM's page table and eight in KVM's, 1/256 of it; as much again for what
/// fragments them.
const PAGE_TABLES: u64 = 128;

/// The limits of [`nacre_control::VmConfig`].
const MOST_VCPUS: u64 = 64;
const LEAST_MEMORY_MIB: u32 = 64;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::host_cgroup::Limit;

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
        let limits = Limits { memory: memory.into(), quota, period, shares: None };
        let size = limits.size(&Configuration::default(), &HostLimits::default()).unwrap();
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
        let size = Limits { memory, quota, ..Default::default() }
            .size(&configuration, &HostLimits::default())
            .unwrap();
        // The host of this test may have fewer CPUs.
        let host = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        assert_eq!(size.memory_mib, memory_mib);
        assert!(size.vcpus == vcpus || host < 3 && size.vcpus.is_power_of_two(), "{size:?}");
    }

    #[test]
    fn more_than_the_most_is_refused_with_both_numbers() {
        let limits = Limits { memory: Some(1 << 40), ..Default::default() };
        let error = limits.size(&Configuration::default(), &HostLimits::default()).unwrap_err().to_string();
        assert!(error.contains("1048640") && error.contains("131072"), "{error}");
    }

    fn in_group(mib: u64) -> HostLimits {
        let memory = Limit { bytes: mib * MIB, group: "/sys/fs/cgroup/kubepods/pod".into() };
        HostLimits { memory: Some(memory), cpus: Some(1) }
    }

    #[rstest]
    #[case::room_for_all(Some(512), 1024, 576)]
    // 592 less 1/128 and less 16.
    #[case::just_the_limit_and_the_overheads(Some(512), 592, 571)]
    #[case::no_overhead(Some(512), 512, 492)]
    #[case::default(None, 128, 111)]
    fn a_vm_stays_below_its_control_groups_limit(
        #[case] memory_mib: Option<i64>,
        #[case] group_mib: u64,
        #[case] vm_mib: u32,
    ) {
        let limits =
            Limits { memory: memory_mib.map(|mib| mib << 20), quota: Some(800_000), ..Default::default() };
        let size = limits.size(&Configuration::default(), &in_group(group_mib)).unwrap();
        assert_eq!(size, Size { vcpus: 1, memory_mib: vm_mib });
    }

    #[rstest]
    #[case(1024, Some(512))]
    #[case(500, Some(256))]
    #[case(200, None)]
    fn a_confidential_vm_has_a_step_below_its_control_groups_limit(
        #[case] group_mib: u64,
        #[case] vm_mib: Option<u32>,
    ) {
        let mut configuration = Configuration::default();
        configuration.vm.tee = Tee::Simulated;
        configuration.confidential.memory_mib = vec![256, 512, 1024].try_into().unwrap();
        let limits = Limits { memory: Some(400 << 20), ..Default::default() };
        let size = limits.size(&configuration, &in_group(group_mib)).ok();
        assert_eq!(size.map(|size| size.memory_mib), vm_mib);
    }

    #[test]
    fn a_control_group_without_room_is_refused_with_the_numbers() {
        let limits = Limits { memory: Some(64 << 20), ..Default::default() };
        let error = limits.size(&Configuration::default(), &in_group(64)).unwrap_err().to_string();
        for part in ["/sys/fs/cgroup/kubepods/pod", "limited to 64 MiB", "leaves 47 MiB", "at least 64 MiB"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_request_without_a_limit_gets_its_cpus() {
        let limits = Limits { shares: Some(1025), ..Default::default() };
        let there = std::thread::available_parallelism().unwrap().get();
        let size = limits.size(&Configuration::default(), &HostLimits::default()).unwrap();
        assert_eq!(usize::from(size.vcpus), 2.min(there));
    }
}
