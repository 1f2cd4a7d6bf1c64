use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Type, Mount, Spec};
use rstest::rstest;
use serde_json::json;
use ttrpc::Code;

use super::*;

fn volumes() -> Volumes {
    Volumes::new(slog::Logger::root(slog::Discard, slog::o!()))
}

fn id() -> Id {
    Id::new("web").unwrap()
}

/// What `ctr run` makes, shortened.
fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Spec {
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "apparmorProfile": "cri-containerd",
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=65536k"]}
        ],
        "linux": {
            "cgroupsPath": "/default/web",
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 1048576},
                          "cpu": {"cpus": "0-3", "shares": 512}},
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": "/run/netns/cni-1"}
            ]
        }
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

#[test]
fn what_the_host_needs_not_know_goes_to_the_agent_as_it_is() {
    let prepared = prepare(spec(|_| {}), &id(), &Role::Lone, 1, &volumes()).unwrap();
    let process = prepared.spec.Process.unwrap();
    assert_eq!(process.Args, ["true"]);
    assert_eq!(process.Capabilities.Bounding, ["CAP_CHOWN"]);
    assert!(process.NoNewPrivileges);
    assert_eq!(process.Rlimits.len(), 1);
    assert_eq!(prepared.spec.Mounts.len(), 3);
    assert_eq!(prepared.spec.Linux.Resources.Memory.Limit, 1_048_576);
    assert_eq!(prepared.spec.Annotations[CONTAINER_TYPE], "single_container");
}

#[test]
fn what_belongs_to_the_host_is_taken_out() {
    let prepared = prepare(spec(|_| {}), &id(), &Role::Lone, 1, &volumes()).unwrap();
    let linux = prepared.spec.Linux.unwrap();
    assert_eq!(prepared.spec.Root.Path, "/run/kata-containers/web/rootfs");
    assert_eq!(prepared.spec.Process.ApparmorProfile, "");
    assert_eq!(linux.Resources.CPU.Cpus, "");
    assert_eq!(linux.Resources.CPU.Shares, 512);
    assert!(linux.Resources.Devices.is_empty());
    let kinds: Vec<&str> = linux.Namespaces.iter().map(|namespace| namespace.Type.as_str()).collect();
    assert_eq!(kinds, ["ipc", "uts", "mount"]);
    assert!(linux.Namespaces.iter().all(|namespace| namespace.Path.is_empty()));
}

#[rstest]
#[case::hook("/hooks", json!({"prestart": [{"path": "/bin/hook"}]}), "/bin/hook")]
#[case::device(
    "/linux/devices", json!([{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}]), "/dev/kvm"
)]
#[case::file_system("/mounts", json!([{"destination": "/data", "type": "nfs", "source": "x:/y"}]), "nfs")]
#[case::host_network(
    "/linux/namespaces", json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]), "network"
)]
#[case::foreign_pid(
    "/linux/namespaces",
    json!([{"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"}]),
    "/proc/7/ns/pid"
)]
fn what_can_not_be_honoured_is_named(
    #[case] at: &str,
    #[case] value: serde_json::Value,
    #[case] named: &str,
) {
    let spec = spec(|spec| {
        let (parent, key) = at.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
    });
    let error = prepare(spec, &id(), &Role::Lone, 1, &volumes()).unwrap_err();
    assert!(error.to_string().contains(named), "{error}");
    assert_eq!(error.code(), Code::UNIMPLEMENTED);
}

#[test]
fn a_pods_shared_process_namespace_is_known_by_its_sandbox() {
    let namespaces: Vec<LinuxNamespace> = serde_json::from_value(json!([
        {"type": "pid", "path": "/proc/42/ns/pid"}, {"type": "ipc", "path": "/proc/42/ns/ipc"},
        {"type": "network", "path": "/run/netns/x"}, {"type": "mount"}
    ]))
    .unwrap();
    let mapped = namespaces::map(&namespaces, 42).unwrap();
    assert!(mapped.shares_processes);
    let kinds: Vec<Type> = mapped.kept.iter().map(LinuxNamespace::typ).collect();
    assert_eq!(kinds, [Type::Ipc, Type::Mount]);
}

#[test]
fn a_bind_is_copied_to_a_path_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "").unwrap();
    let mut mounts: Vec<Mount> = serde_json::from_value(json!([
        {"destination": "/etc/hosts", "type": "bind", "source": hosts, "options": ["rbind", "ro"]},
        {"destination": "/etc/hosts2", "source": hosts, "options": ["bind"]},
        {"destination": "/dev/shm", "type": "bind", "source": "/run/sandbox/shm", "options": ["rbind"]}
    ]))
    .unwrap();
    let binds = mounts::map(&mut mounts, &id(), true, &volumes()).unwrap().binds;
    assert_eq!(binds.len(), 2);
    let guest = |index: usize| mounts[index].source().as_ref().unwrap().display().to_string();
    assert_ne!(guest(0), guest(1));
    assert!(guest(0).starts_with("/run/kata-containers/shared/containers/web-"));
    assert!(guest(0).ends_with("-hosts"));
    assert_eq!(mounts[2].source().as_deref(), Some(SHM_FOLDER.as_ref()));
}

#[test]
fn a_file_system_on_a_device_that_is_no_disk_is_refused_before_anything_is_made() {
    let mut mounts: Vec<Mount> = serde_json::from_value(json!([
        {"destination": "/data", "type": "ext4", "source": "/dev/null", "options": ["rw", "rslave", "nosuid"]}
    ]))
    .unwrap();
    let error = mounts::map(&mut mounts, &id(), true, &volumes()).unwrap_err();
    assert!(error.to_string().contains("no block device"), "{error}");
    assert_eq!(error.code(), Code::INVALID_ARGUMENT);
}

#[rstest]
#[case::network(Type::Network, "network")]
#[case::processes(Type::Pid, "pid")]
#[case::ipc(Type::Ipc, "ipc")]
fn a_pod_that_wants_the_hosts_namespace_is_refused_by_its_sandbox(#[case] kind: Type, #[case] name: &str) {
    let namespaces = [Type::Pid, Type::Network, Type::Ipc, Type::Uts, Type::Mount];
    let of = |kinds: &[Type]| {
        let mut spec = Spec::default();
        let kinds = kinds.iter().map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(*kind);
            namespace
        });
        let mut linux = Linux::default();
        linux.set_namespaces(Some(kinds.collect()));
        spec.set_linux(Some(linux));
        spec
    };
    check_sandbox(&of(&namespaces)).unwrap();
    let left: Vec<_> = namespaces.into_iter().filter(|namespace| *namespace != kind).collect();
    let error = check_sandbox(&of(&left)).unwrap_err();
    assert_eq!(error.code(), Code::UNIMPLEMENTED);
    let text = error.to_string();
    assert!(text.contains(name) && text.contains("hostNetwork"), "{text}");

    let with_users = check_sandbox(&of(&[&namespaces[..], &[Type::User]].concat())).unwrap_err();
    assert!(with_users.to_string().contains("hostUsers"), "{with_users}");
}

#[test]
fn mounts_that_should_reach_the_host_are_refused_by_name() {
    let mut mounts: Vec<Mount> = serde_json::from_value(json!([
        {"destination": "/csi", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared"]}
    ]))
    .unwrap();
    let error = mounts::map(&mut mounts, &id(), true, &volumes()).unwrap_err();
    assert!(error.to_string().contains("the mount on /csi can't be rshared"), "{error}");
    assert_eq!(error.code(), Code::UNIMPLEMENTED);
}

#[test]
fn the_agent_is_told_where_the_termination_log_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    std::fs::write(&log, "").unwrap();
    let spec = spec(|spec| {
        spec["mounts"] = json!([{"destination": "/dev/termination-log", "type": "bind", "source": log}]);
    });
    let prepared = prepare(spec, &id(), &Role::Lone, 1, &volumes()).unwrap();
    assert_eq!(prepared.spec.Annotations[TERMINATION_LOG], "/dev/termination-log");
}

#[test]
fn a_block_device_becomes_a_disk_and_of_a_privileged_containers_list_only_the_guests_is_kept() {
    let loop_device = json!({"path": "/dev/data", "type": "b", "major": 7, "minor": 1});
    let zero = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3});
    let with = |rules: serde_json::Value, devices: serde_json::Value| {
        let spec = spec(|spec| {
            spec["linux"]["resources"]["devices"] = rules;
            spec["linux"]["devices"] = devices;
        });
        prepare(spec, &id(), &Role::Lone, 1, &volumes()).unwrap()
    };
    let asked = with(
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 7, "minor": 1, "access": "rw"}]),
        json!([zero, loop_device]),
    );
    assert_eq!((asked.disks.len(), asked.spec.Linux.Devices.len()), (1, 2));
    let kvm = json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232});
    let privileged = with(json!([{"allow": true, "access": "rwm"}]), json!([zero, loop_device, kvm]));
    assert_eq!((privileged.disks.len(), privileged.spec.Linux.Devices.len()), (0, 1));
}
