//! Makes a specification from the host fit the guest.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall, Process, Spec,
};

use crate::cgroup;
use crate::cgroup::{Cgroup, DeviceAccess};
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;

/// What a container needs besides its specification.
#[derive(Debug)]
pub struct Fitted {
    /// The specification for libcontainer.
    pub spec: Spec,
    /// The devices that it may use.
    pub devices: DeviceAccess,
    /// Kernel parameters of the network, which is the whole guest's.
    pub network_parameters: HashMap<String, String>,
}

/// Makes the specification fit. `pid_namespace` is the one to share, if there is one.
pub fn fit(mut spec: Spec, id: &ContainerId, pid_namespace: Option<PathBuf>) -> Reply<Fitted> {
    let process =
        spec.process_mut().as_mut().ok_or_else(|| Failure::invalid("the specification has no process"))?;
    fit_process(process);
    let root = spec.root().as_ref().ok_or_else(|| Failure::invalid("the specification has no root"))?;
    if !root.path().is_absolute() {
        return Err(Failure::invalid(format!("the root {} is not absolute", root.path().display())));
    }
    // The guest has the pod's host name; there is no namespace of the container's own to set it in.
    spec.set_hostname(None).set_domainname(None);
    let devices = DeviceAccess::of(&spec);
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_namespaces(Some(namespaces(linux.namespaces().as_deref().unwrap_or_default(), pid_namespace)));
    linux.set_cgroups_path(Some(Cgroup::name(id))).set_intel_rdt(None).set_mount_label(None);
    if let Some(propagation) = linux.rootfs_propagation() {
        linux.set_rootfs_propagation(Some(fit_propagation(propagation).to_owned()));
    }
    if let Some(mut resources) = linux.resources().clone() {
        cgroup::fit(&mut resources);
        linux.set_resources(Some(resources));
    }
    if let Some(filter) = linux.seccomp() {
        let filter = fit_seccomp(filter)?;
        linux.set_seccomp(Some(filter));
    }
    let (network_parameters, others): (HashMap<_, _>, HashMap<_, _>) =
        linux.sysctl().clone().unwrap_or_default().into_iter().partition(|(key, _)| is_of_the_network(key));
    linux.set_sysctl(Some(others).filter(|others| !others.is_empty()));
    spec.set_linux(Some(linux));
    Ok(Fitted { spec, devices, network_parameters })
}

/// Makes a process fit: the guest has neither AppArmor nor SELinux, the VM is the boundary.
pub fn fit_process(process: &mut Process) {
    process.set_apparmor_profile(None).set_selinux_label(None);
}

/// The namespaces: mount, cgroup and user as asked for, pid its own or the shared one, the rest the guest's.
fn namespaces(asked: &[LinuxNamespace], pid_namespace: Option<PathBuf>) -> Vec<LinuxNamespace> {
    let namespace = |kind, path| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let guest = |name: &str| Some(PathBuf::from(format!("/proc/1/ns/{name}")));
    let asked_for = |kind| asked.iter().any(|one| one.typ() == kind);
    let mut namespaces = vec![
        namespace(LinuxNamespaceType::Mount, None),
        namespace(LinuxNamespaceType::Pid, pid_namespace),
        namespace(LinuxNamespaceType::Ipc, guest("ipc")),
        namespace(LinuxNamespaceType::Uts, guest("uts")),
    ];
    for kind in [LinuxNamespaceType::Cgroup, LinuxNamespaceType::User] {
        if asked_for(kind) {
            namespaces.push(namespace(kind, None));
        }
    }
    namespaces
}

/// containerd's CRI asks for `rslave` where a mount is `HostToContainer`; libcontainer knows the names without their
/// `r` only, and always means the whole tree.
fn fit_propagation(asked: &str) -> &str {
    match asked {
        "rshared" => "shared",
        "rslave" => "slave",
        "rprivate" => "private",
        "runbindable" => "unbindable",
        other => other,
    }
}

/// OCI gives a masked comparison the mask first and then the value; libcontainer takes them the other way round.
fn fit_seccomp(filter: &LinuxSeccomp) -> Reply<LinuxSeccomp> {
    let swap = |arg: &LinuxSeccompArg| -> Reply<LinuxSeccompArg> {
        if arg.op() != LinuxSeccompOperator::ScmpCmpMaskedEq {
            return Ok(*arg);
        }
        LinuxSeccompArgBuilder::default()
            .index(arg.index())
            .op(arg.op())
            .value(arg.value_two().unwrap_or_default())
            .value_two(arg.value())
            .build()
            .map_err(|error| Failure::invalid(error.to_string()))
    };
    let mut fitted = filter.clone();
    if let Some(syscalls) = filter.syscalls() {
        let mut all: Vec<LinuxSyscall> = Vec::with_capacity(syscalls.len());
        for syscall in syscalls {
            let mut syscall = syscall.clone();
            if let Some(args) = syscall.args() {
                let args = args.iter().map(swap).collect::<Reply<_>>()?;
                syscall.set_args(Some(args));
            }
            all.push(syscall);
        }
        fitted.set_syscalls(Some(all));
    }
    Ok(fitted)
}

fn is_of_the_network(key: &str) -> bool {
    key.starts_with("net.") || key.starts_with("net/")
}

/// Sets kernel parameters of the network.
pub fn set_network_parameters(parameters: &HashMap<String, String>) -> Reply<()> {
    for (key, value) in parameters {
        let path =
            parameter_path(key).ok_or_else(|| Failure::invalid(format!("the kernel parameter {key:?}")))?;
        fs::write(path, value).doing(&format!("set the kernel parameter {key}"))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/…`: with a slash, dots are part of the names.
fn parameter_path(key: &str) -> Option<PathBuf> {
    let separator = if key.contains('/') { '/' } else { '.' };
    let mut path = Path::new("/proc/sys").to_owned();
    for part in key.split(separator) {
        if part.is_empty() || part == "." || part == ".." {
            return None;
        }
        path.push(part);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId::parse("web").unwrap()
    }

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_hosts_namespaces_become_the_guests() {
        let spec = spec(
            r#"{"process": {"cwd": "/", "user": {}, "apparmorProfile": "x"}, "root": {"path": "/r"}, "hostname": "h",
                "linux": {"cgroupsPath": "system.slice:cri:x", "rootfsPropagation": "rslave", "namespaces": [
                    {"type": "network", "path": "/proc/77/ns/net"}, {"type": "ipc", "path": "/proc/77/ns/ipc"},
                    {"type": "pid"}, {"type": "cgroup"}, {"type": "time"}]}}"#,
        );
        let fitted = fit(spec, &id(), None).unwrap().spec;
        let linux = fitted.linux().as_ref().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), Some("slave"));
        let kinds: Vec<String> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|one| format!("{}:{}", one.typ(), one.path().as_ref().map_or("", |p| p.to_str().unwrap())))
            .collect();
        assert_eq!(kinds, ["mnt:", "pid:", "ipc:/proc/1/ns/ipc", "uts:/proc/1/ns/uts", "cgroup:"]);
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/nacre/web")));
        assert_eq!(fitted.process().as_ref().unwrap().apparmor_profile(), &None);
    }

    #[test]
    fn network_parameters_are_set_for_the_guest_and_others_left_to_the_container() {
        let spec = spec(
            r#"{"process": {"cwd": "/", "user": {}}, "root": {"path": "/r"},
                "linux": {"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "2"}}}"#,
        );
        let fitted = fit(spec, &id(), None).unwrap();
        assert_eq!(fitted.network_parameters.keys().collect::<Vec<_>>(), ["net.ipv4.ip_forward"]);
        let others = fitted.spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
        assert_eq!(others.keys().collect::<Vec<_>>(), ["kernel.shmmax"]);
    }

    #[test]
    fn kernel_parameters_can_not_lead_elsewhere() {
        assert_eq!(parameter_path("net.ipv4.ip_forward"), Some("/proc/sys/net/ipv4/ip_forward".into()));
        assert_eq!(parameter_path("net/ipv4/conf/a.b/x"), Some("/proc/sys/net/ipv4/conf/a.b/x".into()));
        assert_eq!(parameter_path("net/../../etc/passwd"), None);
        assert_eq!(parameter_path("net..x"), None);
    }

    #[test]
    fn masked_comparisons_are_turned_for_libcontainer() {
        let filter: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        let fitted = fit_seccomp(&filter).unwrap();
        let arg = fitted.syscalls().as_ref().unwrap()[0].args().as_ref().unwrap()[0];
        assert_eq!((arg.value(), arg.value_two()), (0, Some(2114060288)));
    }
}
