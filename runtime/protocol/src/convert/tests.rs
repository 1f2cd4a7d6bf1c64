use oci_spec::runtime;

use crate::oci;

/// Every field that a message carries, each with a value of its own.
const FULL: &str = r#"{
  "ociVersion": "1.1.0",
  "process": {
    "terminal": true,
    "consoleSize": {"height": 24, "width": 80},
    "user": {"uid": 1000, "gid": 1001, "umask": 18, "additionalGids": [5, 6], "username": "app"},
    "args": ["/bin/sh", "-c", "true"],
    "env": ["PATH=/bin", "SECRET_KEY=x"],
    "cwd": "/work",
    "capabilities": {
      "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"], "inheritable": [],
      "permitted": ["CAP_CHOWN"], "ambient": []
    },
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
    "noNewPrivileges": true,
    "apparmorProfile": "profile",
    "oomScoreAdj": -10,
    "selinuxLabel": "label"
  },
  "root": {"path": "rootfs", "readonly": true},
  "hostname": "web",
  "domainname": "example.org",
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
  "hooks": {
    "poststart": [{"path": "/bin/hook", "args": ["hook"], "env": ["A=b"], "timeout": 5}],
    "startContainer": [{"path": "/bin/other"}]
  },
  "annotations": {"a": "b"},
  "linux": {
    "uidMappings": [{"hostID": 1, "containerID": 2, "size": 3}],
    "gidMappings": [{"hostID": 4, "containerID": 5, "size": 6}],
    "sysctl": {"net.ipv4.ip_forward": "1"},
    "cgroupsPath": "/ns/web",
    "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}, {"type": "mount"}],
    "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 7, "gid": 8}],
    "rootfsPropagation": "rslave",
    "maskedPaths": ["/proc/kcore"],
    "readonlyPaths": ["/proc/sys"],
    "mountLabel": "mount",
    "intelRdt": {"l3CacheSchema": "L3:0=f"},
    "resources": {
      "devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 0, "access": "rw"},
        {"allow": true, "type": "b", "major": 8, "access": "r"}
      ],
      "memory": {"limit": 1, "reservation": 2, "swap": -1, "kernel": 4, "kernelTCP": 5, "swappiness": 6, "disableOOMKiller": true},
      "cpu": {"shares": 1, "quota": -1, "period": 3, "realtimeRuntime": 4, "realtimePeriod": 5, "cpus": "0-1", "mems": "0", "burst": 6, "idle": 0},
      "pids": {"limit": 100},
      "blockIO": {
        "weight": 10, "leafWeight": 20,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}]
      },
      "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
      "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 8}]},
      "unified": {"memory.high": "100"}
    },
    "seccomp": {
      "defaultAction": "SCMP_ACT_ERRNO",
      "defaultErrnoRet": 38,
      "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
      "flags": ["SECCOMP_FILTER_FLAG_LOG"],
      "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0,
         "args": [
           {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
           {"index": 1, "value": 3, "op": "SCMP_CMP_GT"}
         ]}
      ]
    }
  }
}"#;

fn spec(json: &str) -> runtime::Spec {
    serde_json::from_str(json).expect("a specification")
}

fn there_and_back(spec: &runtime::Spec) -> runtime::Spec {
    use protobuf::Message;
    let bytes = oci::Spec::try_from(spec).expect("to the wire").write_to_bytes().expect("encode");
    let wire = oci::Spec::parse_from_bytes(&bytes).expect("decode");
    runtime::Spec::try_from(&wire).expect("from the wire")
}

#[test]
fn every_field_survives_the_way_there_and_back() {
    let before = spec(FULL);
    let after = there_and_back(&before);
    assert_eq!(after, before);
}

#[test]
fn an_empty_specification_gains_nothing_on_the_way() {
    let after = there_and_back(&spec(r#"{"ociVersion": "1.1.0"}"#));
    assert_eq!(serde_json::to_value(&after).expect("json"), serde_json::json!({"ociVersion": "1.1.0"}));
}

#[test]
fn the_defaults_of_the_oci_crate_survive_apart_from_their_empty_lists() {
    let once = there_and_back(&runtime::Spec::default());
    assert_eq!(there_and_back(&once), once);
    assert_eq!(
        once.mounts().as_ref().map(Vec::len),
        runtime::Spec::default().mounts().as_ref().map(Vec::len)
    );
}

#[test]
fn empty_capability_sets_stay_empty_rather_than_absent() {
    let wire = oci::LinuxCapabilities::default();
    let capabilities = runtime::LinuxCapabilities::try_from(&wire).expect("capabilities");
    assert_eq!(capabilities.bounding().as_ref().map(|set| set.len()), Some(0));
}

#[test]
fn what_has_no_field_is_refused_by_name() {
    for (json, field) in [
        (
            r#"{"process": {"cwd": "/", "user": {}, "scheduler": {"policy": "SCHED_FIFO"}}}"#,
            "process.scheduler",
        ),
        (
            r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}}}"#,
            "linux.seccomp.listenerPath",
        ),
        (r#"{"linux": {"resources": {"rdma": {"mlx": {"hcaHandles": 1}}}}}"#, "linux.resources.rdma"),
        (r#"{"linux": {"personality": {"domain": "LINUX32"}}}"#, "linux.personality"),
    ] {
        let refused = oci::Spec::try_from(&spec(json)).expect_err(field);
        assert_eq!(refused.to_string(), format!("{field} can't be passed to the agent"));
    }
}

#[test]
fn unknown_names_from_the_wire_are_errors() {
    let namespace = oci::LinuxNamespace { Type: "galaxy".into(), ..Default::default() };
    assert!(runtime::LinuxNamespace::try_from(&namespace).is_err());
    let capabilities = oci::LinuxCapabilities { Bounding: vec!["CAP_FLY".into()], ..Default::default() };
    assert!(runtime::LinuxCapabilities::try_from(&capabilities).is_err());
}

#[test]
fn kata_style_zero_device_numbers_mean_all_devices() {
    let rule = oci::LinuxDeviceCgroup { Access: "rwm".into(), ..Default::default() };
    let rule = runtime::LinuxDeviceCgroup::try_from(&rule).expect("a rule");
    assert_eq!((rule.major(), rule.minor()), (None, None));
}
