//! Resource limits.

use oci_spec::runtime;

use super::{
    ConvertError, Result, built, each, each_if_any, flag, map, message, name, named, nonzero, number, part,
    refuse_if, text,
};
use crate::oci;

/// OCI writes an absent device number, which means "all of them", as -1 where it has to be a number.
const ANY_DEVICE_NUMBER: i64 = -1;

impl TryFrom<&runtime::LinuxResources> for oci::LinuxResources {
    type Error = ConvertError;

    fn try_from(resources: &runtime::LinuxResources) -> Result<Self> {
        refuse_if(resources.rdma().as_ref().is_some_and(|all| !all.is_empty()), "linux.resources.rdma")?;
        Ok(Self {
            Devices: each(resources.devices().as_ref())?,
            Memory: message(resources.memory().as_ref())?,
            CPU: message(resources.cpu().as_ref())?,
            Pids: message(resources.pids().as_ref())?,
            BlockIO: message(resources.block_io().as_ref())?,
            HugepageLimits: each(resources.hugepage_limits().as_ref())?,
            Network: message(resources.network().as_ref())?,
            Unified: resources.unified().clone().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxResources> for runtime::LinuxResources {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxResources) -> Result<Self> {
        let mut resources = Self::default();
        resources
            .set_devices(each_if_any(&wire.Devices)?)
            .set_memory(part(&wire.Memory)?)
            .set_cpu(part(&wire.CPU)?)
            .set_pids(part(&wire.Pids)?)
            .set_block_io(part(&wire.BlockIO)?)
            .set_hugepage_limits(each_if_any(&wire.HugepageLimits)?)
            .set_network(part(&wire.Network)?)
            .set_rdma(None)
            .set_unified(map(&wire.Unified));
        Ok(resources)
    }
}

impl TryFrom<&runtime::LinuxMemory> for oci::LinuxMemory {
    type Error = ConvertError;

    fn try_from(memory: &runtime::LinuxMemory) -> Result<Self> {
        // Always so with cgroup v2, which is all that the guest has.
        refuse_if(memory.use_hierarchy() == Some(false), "linux.resources.memory.useHierarchy")?;
        refuse_if(memory.check_before_update() == Some(true), "linux.resources.memory.checkBeforeUpdate")?;
        // Deprecated by OCI; still part of the message.
        #[allow(deprecated)]
        let kernel = memory.kernel();
        Ok(Self {
            Limit: memory.limit().unwrap_or_default(),
            Reservation: memory.reservation().unwrap_or_default(),
            Swap: memory.swap().unwrap_or_default(),
            Kernel: kernel.unwrap_or_default(),
            KernelTCP: memory.kernel_tcp().unwrap_or_default(),
            Swappiness: memory.swappiness().unwrap_or_default(),
            DisableOOMKiller: memory.disable_oom_killer().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxMemory> for runtime::LinuxMemory {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxMemory) -> Result<Self> {
        let mut memory = Self::default();
        #[allow(deprecated)]
        memory.set_kernel(nonzero(wire.Kernel));
        memory
            .set_limit(nonzero(wire.Limit))
            .set_reservation(nonzero(wire.Reservation))
            .set_swap(nonzero(wire.Swap))
            .set_kernel_tcp(nonzero(wire.KernelTCP))
            .set_swappiness(nonzero(wire.Swappiness))
            .set_disable_oom_killer(flag(wire.DisableOOMKiller));
        Ok(memory)
    }
}

impl TryFrom<&runtime::LinuxCpu> for oci::LinuxCPU {
    type Error = ConvertError;

    fn try_from(cpu: &runtime::LinuxCpu) -> Result<Self> {
        Ok(Self {
            Shares: cpu.shares().unwrap_or_default(),
            Quota: cpu.quota().unwrap_or_default(),
            Period: cpu.period().unwrap_or_default(),
            RealtimeRuntime: cpu.realtime_runtime().unwrap_or_default(),
            RealtimePeriod: cpu.realtime_period().unwrap_or_default(),
            Cpus: cpu.cpus().clone().unwrap_or_default(),
            Mems: cpu.mems().clone().unwrap_or_default(),
            Burst: cpu.burst().unwrap_or_default(),
            Idle: cpu.idle(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxCPU> for runtime::LinuxCpu {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxCPU) -> Result<Self> {
        let mut cpu = Self::default();
        cpu.set_shares(nonzero(wire.Shares))
            .set_quota(nonzero(wire.Quota))
            .set_idle(wire.Idle)
            .set_burst(nonzero(wire.Burst))
            .set_period(nonzero(wire.Period))
            .set_realtime_runtime(nonzero(wire.RealtimeRuntime))
            .set_realtime_period(nonzero(wire.RealtimePeriod))
            .set_cpus(text(&wire.Cpus))
            .set_mems(text(&wire.Mems));
        Ok(cpu)
    }
}

impl TryFrom<&runtime::LinuxPids> for oci::LinuxPids {
    type Error = ConvertError;

    fn try_from(pids: &runtime::LinuxPids) -> Result<Self> {
        Ok(Self { Limit: pids.limit(), ..Default::default() })
    }
}

impl TryFrom<&oci::LinuxPids> for runtime::LinuxPids {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxPids) -> Result<Self> {
        let mut pids = Self::default();
        pids.set_limit(wire.Limit);
        Ok(pids)
    }
}

impl TryFrom<&runtime::LinuxDeviceCgroup> for oci::LinuxDeviceCgroup {
    type Error = ConvertError;

    fn try_from(rule: &runtime::LinuxDeviceCgroup) -> Result<Self> {
        Ok(Self {
            Allow: rule.allow(),
            Type: rule
                .typ()
                .as_ref()
                .map(|one| name("linux.resources.devices.type", one))
                .transpose()?
                .unwrap_or_default(),
            Major: rule.major().unwrap_or(ANY_DEVICE_NUMBER),
            Minor: rule.minor().unwrap_or(ANY_DEVICE_NUMBER),
            Access: rule.access().clone().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxDeviceCgroup> for runtime::LinuxDeviceCgroup {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxDeviceCgroup) -> Result<Self> {
        // No device has the major number 0: Kata's shims send it for an absent one.
        let major = nonzero(wire.Major).filter(|number| *number != ANY_DEVICE_NUMBER);
        let minor = Some(wire.Minor)
            .filter(|number| *number != ANY_DEVICE_NUMBER)
            .filter(|number| major.is_some() || *number != 0);
        let typ = text(&wire.Type).map(|one| named("linux.resources.devices.type", &one)).transpose()?;
        let mut rule = Self::default();
        rule.set_allow(wire.Allow)
            .set_typ(typ)
            .set_major(major)
            .set_minor(minor)
            .set_access(text(&wire.Access));
        Ok(rule)
    }
}

impl TryFrom<&runtime::LinuxBlockIo> for oci::LinuxBlockIO {
    type Error = ConvertError;

    fn try_from(io: &runtime::LinuxBlockIo) -> Result<Self> {
        Ok(Self {
            Weight: io.weight().unwrap_or_default().into(),
            LeafWeight: io.leaf_weight().unwrap_or_default().into(),
            WeightDevice: each(io.weight_device().as_ref())?,
            ThrottleReadBpsDevice: each(io.throttle_read_bps_device().as_ref())?,
            ThrottleWriteBpsDevice: each(io.throttle_write_bps_device().as_ref())?,
            ThrottleReadIOPSDevice: each(io.throttle_read_iops_device().as_ref())?,
            ThrottleWriteIOPSDevice: each(io.throttle_write_iops_device().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxBlockIO> for runtime::LinuxBlockIo {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxBlockIO) -> Result<Self> {
        let mut io = Self::default();
        io.set_weight(nonzero(number("linux.resources.blockIO.weight", wire.Weight)?))
            .set_leaf_weight(nonzero(number("linux.resources.blockIO.leafWeight", wire.LeafWeight)?))
            .set_weight_device(each_if_any(&wire.WeightDevice)?)
            .set_throttle_read_bps_device(each_if_any(&wire.ThrottleReadBpsDevice)?)
            .set_throttle_write_bps_device(each_if_any(&wire.ThrottleWriteBpsDevice)?)
            .set_throttle_read_iops_device(each_if_any(&wire.ThrottleReadIOPSDevice)?)
            .set_throttle_write_iops_device(each_if_any(&wire.ThrottleWriteIOPSDevice)?);
        Ok(io)
    }
}

impl TryFrom<&runtime::LinuxWeightDevice> for oci::LinuxWeightDevice {
    type Error = ConvertError;

    fn try_from(device: &runtime::LinuxWeightDevice) -> Result<Self> {
        Ok(Self {
            Major: device.major(),
            Minor: device.minor(),
            Weight: device.weight().unwrap_or_default().into(),
            LeafWeight: device.leaf_weight().unwrap_or_default().into(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxWeightDevice> for runtime::LinuxWeightDevice {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxWeightDevice) -> Result<Self> {
        let weight: u16 = number("linux.resources.blockIO.weightDevice.weight", wire.Weight)?;
        let leaf: u16 = number("linux.resources.blockIO.weightDevice.leafWeight", wire.LeafWeight)?;
        let mut device = runtime::LinuxWeightDeviceBuilder::default().major(wire.Major).minor(wire.Minor);
        if weight != 0 {
            device = device.weight(weight);
        }
        if leaf != 0 {
            device = device.leaf_weight(leaf);
        }
        built("linux.resources.blockIO.weightDevice", device.build())
    }
}

impl TryFrom<&runtime::LinuxThrottleDevice> for oci::LinuxThrottleDevice {
    type Error = ConvertError;

    fn try_from(device: &runtime::LinuxThrottleDevice) -> Result<Self> {
        Ok(Self { Major: device.major(), Minor: device.minor(), Rate: device.rate(), ..Default::default() })
    }
}

impl TryFrom<&oci::LinuxThrottleDevice> for runtime::LinuxThrottleDevice {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxThrottleDevice) -> Result<Self> {
        let device = runtime::LinuxThrottleDeviceBuilder::default()
            .major(wire.Major)
            .minor(wire.Minor)
            .rate(wire.Rate);
        built("linux.resources.blockIO.throttle", device.build())
    }
}

impl TryFrom<&runtime::LinuxHugepageLimit> for oci::LinuxHugepageLimit {
    type Error = ConvertError;

    fn try_from(limit: &runtime::LinuxHugepageLimit) -> Result<Self> {
        Ok(Self {
            Pagesize: limit.page_size().clone(),
            Limit: number("linux.resources.hugepageLimits.limit", limit.limit())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxHugepageLimit> for runtime::LinuxHugepageLimit {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxHugepageLimit) -> Result<Self> {
        let mut limit = Self::default();
        limit
            .set_page_size(wire.Pagesize.clone())
            .set_limit(number("linux.resources.hugepageLimits.limit", wire.Limit)?);
        Ok(limit)
    }
}

impl TryFrom<&runtime::LinuxNetwork> for oci::LinuxNetwork {
    type Error = ConvertError;

    fn try_from(network: &runtime::LinuxNetwork) -> Result<Self> {
        Ok(Self {
            ClassID: network.class_id().unwrap_or_default(),
            Priorities: each(network.priorities().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxNetwork> for runtime::LinuxNetwork {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxNetwork) -> Result<Self> {
        let mut network = Self::default();
        network.set_class_id(nonzero(wire.ClassID)).set_priorities(each_if_any(&wire.Priorities)?);
        Ok(network)
    }
}

impl TryFrom<&runtime::LinuxInterfacePriority> for oci::LinuxInterfacePriority {
    type Error = ConvertError;

    fn try_from(one: &runtime::LinuxInterfacePriority) -> Result<Self> {
        Ok(Self { Name: one.name().clone(), Priority: one.priority(), ..Default::default() })
    }
}

impl TryFrom<&oci::LinuxInterfacePriority> for runtime::LinuxInterfacePriority {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxInterfacePriority) -> Result<Self> {
        let mut one = Self::default();
        one.set_name(wire.Name.clone()).set_priority(wire.Priority);
        Ok(one)
    }
}
