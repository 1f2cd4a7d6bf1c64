//! From containerd's OCI specification to the one the guest gets.
//!
//! What belongs to the host is taken out or mapped, what can't be honoured in a VM is refused by name, and all
//! else (seccomp, capabilities, rlimits, sysctls, masked paths and so on) goes to the agent as it is.

mod error;
mod mounts;
mod namespaces;

use std::collections::HashMap;
use std::path::PathBuf;

use nacre_protocol::{CONTAINERS_FOLDER, oci};
use oci_spec::runtime::{Hooks, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Process, Spec};

pub use error::SpecError;
pub use mounts::{Needs, SHM_FOLDER};

use crate::annotations::Role;
use crate::id::Id;
use crate::volumes::{Bind, Disk, Volumes};

/// The annotation by which Kata's agent knows what a container is.
const CONTAINER_TYPE: &str = "io.katacontainers.pkg.oci.container_type";
/// The annotation by which Kata's agent knows a container's termination log.
const TERMINATION_LOG: &str = "io.kubernetes.container.terminationMessagePath";

/// A specification for the guest and what has to be brought there for it.
#[derive(Debug)]
pub struct Prepared {
    /// The guest's specification.
    pub spec: oci::Spec,
    /// What of the host to bring first for its mounts.
    pub needs: Needs,
    /// Disks of the host to attach first.
    pub disks: Vec<Disk>,
    /// The container's root file system in the guest.
    pub root: String,
    /// The root file system is not to be written.
    pub read_only: bool,
    /// The container lives in the pod's process namespace.
    pub shares_processes: bool,
}

/// Refuses a pod whose sandbox asks for what no VM can have, while nothing on the host is touched yet.
///
/// # Errors
/// The part that can't be honoured.
pub fn check_sandbox(spec: &Spec) -> Result<(), SpecError> {
    refuse_hooks(spec.hooks().as_ref())?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    namespaces::refuse_host(namespaces.unwrap_or_default())
}

/// Makes the guest's specification of container `id`. `sandbox_pid` is what containerd has as the number of the
/// sandbox's process: namespaces of it are the VM's own.
///
/// # Errors
/// The part that can't be honoured.
pub fn prepare(
    mut spec: Spec,
    id: &Id,
    role: &Role,
    sandbox_pid: u32,
    volumes: &Volumes,
) -> Result<Prepared, SpecError> {
    refuse_hooks(spec.hooks().as_ref())?;
    let root = format!("{CONTAINERS_FOLDER}/{id}/rootfs");
    let mut read_only = false;
    if let Some(host_root) = spec.root_mut() {
        read_only = host_root.readonly().unwrap_or(false);
        host_root.set_path(PathBuf::from(&root));
    }

    let mut shares_processes = false;
    let mut disks = Vec::new();
    if let Some(linux) = spec.linux_mut() {
        disks = map_devices(linux)?;
        let namespaces = namespaces::map(linux.namespaces().as_deref().unwrap_or_default(), sandbox_pid)?;
        shares_processes = namespaces.shares_processes;
        linux.set_namespaces(Some(namespaces.kept));
        // It labels the host's copies of files.
        linux.set_mount_label(None);
        if let Some(resources) = linux.resources_mut() {
            // CPU numbers and devices are the host's; the VM's size stands for the first, its devices for the rest: what
            // is said of all devices, for a privileged container, is true of the VM's, too.
            let of_all =
                resources.devices().iter().flatten().filter(|rule| allows_all(rule)).cloned().collect();
            resources.set_devices(Some(of_all).filter(|rules: &Vec<_>| !rules.is_empty()));
            resources.set_block_io(None);
            resources.set_network(None);
            if let Some(cpu) = resources.cpu_mut() {
                cpu.set_cpus(None);
                cpu.set_mems(None);
            }
        }
        let cgroup = linux.cgroups_path().as_ref().map(|path| guest_cgroup(path));
        linux.set_cgroups_path(cgroup);
    }
    if let Some(process) = spec.process_mut() {
        unlabel(process);
    }

    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let needs = mounts::map(&mut mounts, id, matches!(role, Role::Member { .. }), volumes)?;
    spec.set_mounts(Some(mounts));

    let mut annotations: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
    annotations.insert(CONTAINER_TYPE.into(), kind(role).into());
    if let Some(path) = needs.binds.iter().find_map(Bind::termination_log) {
        annotations.insert(TERMINATION_LOG.into(), path.display().to_string());
    }
    spec.set_annotations(Some(annotations));

    Ok(Prepared { spec: oci::Spec::try_from(&spec)?, needs, disks, root, read_only, shares_processes })
}

/// The process of an exec for the guest.
///
/// # Errors
/// The part that can't be carried.
pub fn prepare_process(mut process: Process) -> Result<oci::Process, SpecError> {
    unlabel(&mut process);
    Ok(oci::Process::try_from(&process)?)
}

/// AppArmor and SELinux guard the host against its containers; the VM's border stands in their place, and their
/// policies are not loaded in it.
fn unlabel(process: &mut Process) {
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
}

fn kind(role: &Role) -> &'static str {
    match role {
        Role::Lone => "single_container",
        Role::Sandbox => "pod_sandbox",
        Role::Member { .. } => "pod_container",
    }
}

/// systemd's `slice:prefix:name` as a path; there is no systemd in the guest.
fn guest_cgroup(path: &std::path::Path) -> PathBuf {
    match path.to_string_lossy().split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => PathBuf::from(format!("/{slice}/{prefix}-{name}")),
        _ => path.into(),
    }
}

fn refuse_hooks(hooks: Option<&Hooks>) -> Result<(), SpecError> {
    let Some(hooks) = hooks else { return Ok(()) };
    #[allow(deprecated, reason = "a prestart hook is refused like the others")]
    let all = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    match all.into_iter().flatten().flatten().next() {
        Some(hook) => Err(SpecError::Hook(hook.path().clone())),
        None => Ok(()),
    }
}

/// Devices that each Linux has, so that the guest's stand for the host's: major and minor numbers of `mem`, `tty`,
/// `ptmx` and `fuse`.
const COMMON_DEVICES: [(i64, i64); 9] =
    [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 229)];

/// Block devices that a container is given, which become disks of the VM; other devices are refused, but for those that
/// the guest has itself.
fn map_devices(linux: &mut oci_spec::runtime::Linux) -> Result<Vec<Disk>, SpecError> {
    // A container that may do anything to all devices is a privileged one, and its list is all that the host has. It
    // gets the guest's.
    let rules = linux.resources().as_ref().and_then(|resources| resources.devices().as_ref());
    let is_privileged = rules.into_iter().flatten().any(allows_all);
    let is_common = |device: &LinuxDevice| COMMON_DEVICES.contains(&(device.major(), device.minor()));
    let mut disks = Vec::new();
    let mut kept = Vec::new();
    for device in linux.devices().iter().flatten() {
        if is_common(device) {
            kept.push(device.clone());
        } else if is_privileged {
            // The host's.
        } else if device.typ() == LinuxDeviceType::B {
            disks.push(Disk::of(device, rules.map_or(&[], Vec::as_slice)));
            kept.push(device.clone());
        } else {
            return Err(SpecError::Device(device.path().clone()));
        }
    }
    if linux.devices().is_some() {
        linux.set_devices(Some(kept));
    }
    Ok(disks)
}

/// Whether a rule allows to use every device there is.
fn allows_all(rule: &LinuxDeviceCgroup) -> bool {
    let any_kind = rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A);
    rule.allow() && any_kind && rule.major().is_none() && rule.minor().is_none()
}

#[cfg(test)]
mod tests;
