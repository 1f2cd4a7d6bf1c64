//! The Linux part: namespaces, devices, paths.

use std::path::PathBuf;

use oci_spec::runtime;

use super::{
    ConvertError, Result, built, each, each_if_any, list, map, message, name, named, nonzero,
    optional_path_text, part, path, path_text, refuse_if, text,
};
use crate::oci;

impl TryFrom<&runtime::Linux> for oci::Linux {
    type Error = ConvertError;

    fn try_from(linux: &runtime::Linux) -> Result<Self> {
        refuse_if(linux.net_devices().as_ref().is_some_and(|all| !all.is_empty()), "linux.netDevices")?;
        refuse_if(linux.memory_policy().is_some(), "linux.memoryPolicy")?;
        refuse_if(linux.personality().is_some(), "linux.personality")?;
        refuse_if(linux.time_offsets().as_ref().is_some_and(|all| !all.is_empty()), "linux.timeOffsets")?;
        Ok(Self {
            UIDMappings: each(linux.uid_mappings().as_ref())?,
            GIDMappings: each(linux.gid_mappings().as_ref())?,
            Sysctl: linux.sysctl().clone().unwrap_or_default(),
            Resources: message(linux.resources().as_ref())?,
            CgroupsPath: optional_path_text("linux.cgroupsPath", linux.cgroups_path().as_ref())?,
            Namespaces: each(linux.namespaces().as_ref())?,
            Devices: each(linux.devices().as_ref())?,
            Seccomp: message(linux.seccomp().as_ref())?,
            RootfsPropagation: linux.rootfs_propagation().clone().unwrap_or_default(),
            MaskedPaths: linux.masked_paths().clone().unwrap_or_default(),
            ReadonlyPaths: linux.readonly_paths().clone().unwrap_or_default(),
            MountLabel: linux.mount_label().clone().unwrap_or_default(),
            IntelRdt: message(linux.intel_rdt().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Linux> for runtime::Linux {
    type Error = ConvertError;

    fn try_from(wire: &oci::Linux) -> Result<Self> {
        let mut linux = Self::default();
        linux
            .set_net_devices(None)
            .set_uid_mappings(each_if_any(&wire.UIDMappings)?)
            .set_gid_mappings(each_if_any(&wire.GIDMappings)?)
            .set_sysctl(map(&wire.Sysctl))
            .set_resources(part(&wire.Resources)?)
            .set_cgroups_path(path(&wire.CgroupsPath))
            .set_namespaces(each_if_any(&wire.Namespaces)?)
            .set_devices(each_if_any(&wire.Devices)?)
            .set_seccomp(part(&wire.Seccomp)?)
            .set_rootfs_propagation(text(&wire.RootfsPropagation))
            .set_masked_paths(list(&wire.MaskedPaths))
            .set_readonly_paths(list(&wire.ReadonlyPaths))
            .set_mount_label(text(&wire.MountLabel))
            .set_intel_rdt(part(&wire.IntelRdt)?)
            .set_memory_policy(None)
            .set_personality(None)
            .set_time_offsets(None);
        Ok(linux)
    }
}

impl TryFrom<&runtime::LinuxIdMapping> for oci::LinuxIDMapping {
    type Error = ConvertError;

    fn try_from(mapping: &runtime::LinuxIdMapping) -> Result<Self> {
        Ok(Self {
            HostID: mapping.host_id(),
            ContainerID: mapping.container_id(),
            Size: mapping.size(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxIDMapping> for runtime::LinuxIdMapping {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxIDMapping) -> Result<Self> {
        built(
            "linux.uidMappings",
            runtime::LinuxIdMappingBuilder::default()
                .host_id(wire.HostID)
                .container_id(wire.ContainerID)
                .size(wire.Size)
                .build(),
        )
    }
}

impl TryFrom<&runtime::LinuxNamespace> for oci::LinuxNamespace {
    type Error = ConvertError;

    fn try_from(namespace: &runtime::LinuxNamespace) -> Result<Self> {
        Ok(Self {
            Type: name("linux.namespaces.type", &namespace.typ())?,
            Path: optional_path_text("linux.namespaces.path", namespace.path().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxNamespace> for runtime::LinuxNamespace {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxNamespace) -> Result<Self> {
        let mut namespace = Self::default();
        namespace.set_typ(named("linux.namespaces.type", &wire.Type)?).set_path(path(&wire.Path));
        Ok(namespace)
    }
}

impl TryFrom<&runtime::LinuxDevice> for oci::LinuxDevice {
    type Error = ConvertError;

    fn try_from(device: &runtime::LinuxDevice) -> Result<Self> {
        Ok(Self {
            Path: path_text("linux.devices.path", device.path())?,
            Type: name("linux.devices.type", &device.typ())?,
            Major: device.major(),
            Minor: device.minor(),
            FileMode: device.file_mode().unwrap_or_default(),
            UID: device.uid().unwrap_or_default(),
            GID: device.gid().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxDevice> for runtime::LinuxDevice {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxDevice) -> Result<Self> {
        let mut device = Self::default();
        device
            .set_path(PathBuf::from(&wire.Path))
            .set_typ(named("linux.devices.type", &wire.Type)?)
            .set_major(wire.Major)
            .set_minor(wire.Minor)
            .set_file_mode(nonzero(wire.FileMode))
            .set_uid(nonzero(wire.UID))
            .set_gid(nonzero(wire.GID));
        Ok(device)
    }
}

impl TryFrom<&runtime::LinuxIntelRdt> for oci::LinuxIntelRdt {
    type Error = ConvertError;

    fn try_from(rdt: &runtime::LinuxIntelRdt) -> Result<Self> {
        refuse_if(rdt.clos_id().is_some(), "linux.intelRdt.closID")?;
        refuse_if(rdt.schemata().is_some(), "linux.intelRdt.schemata")?;
        refuse_if(rdt.mem_bw_schema().is_some(), "linux.intelRdt.memBwSchema")?;
        Ok(Self { L3CacheSchema: rdt.l3_cache_schema().clone().unwrap_or_default(), ..Default::default() })
    }
}

impl TryFrom<&oci::LinuxIntelRdt> for runtime::LinuxIntelRdt {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxIntelRdt) -> Result<Self> {
        let mut rdt = Self::default();
        rdt.set_l3_cache_schema(text(&wire.L3CacheSchema));
        Ok(rdt)
    }
}
