//! Security context.

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{Int64Value, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy};

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::options::RUNC;

pub const TESTS: &[Test] = &[
    Test::new("security/user-and-groups", "runAsUser, runAsGroup and supplemental groups hold", user),
    Test::new("security/strict-groups", "the strict policy leaves out the image's groups", strict_groups),
    Test::new("security/capabilities", "capabilities are added and dropped", capabilities),
    Test::new("security/no-new-privileges", "no_new_privs is set", no_new_privileges),
    Test::new("security/read-only-root", "a read-only root can't be written, a volume can", read_only_root),
    Test::new("security/seccomp", "seccomp: runtime default, unconfined and a profile of the node", seccomp),
    Test::new("security/privileged", "a privileged container has all capabilities and can mount", privileged),
    Test::new("security/sysctls", "the pod's sysctls are set", sysctls),
    Test::new("security/labels", "fields of AppArmor and SELinux are accepted", labels),
    Test::new("security/masked-paths", "masked paths are empty, read-only ones can't be written", masked),
];

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

fn user(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").script("id -u; id -g; id -G").security(|it| {
        (it.run_as_user, it.run_as_group) = (id(1234), id(2345));
        it.supplemental_groups = vec![3456];
    });
    equal("output", container.run()?.as_str(), "1234\n2345\n2345 3456\n")?;
    let named =
        pod.container("two").script("id -u; id -G").security(|it| it.run_as_username = "alice".into());
    equal("output", named.run()?.as_str(), "1000\n1000 2000 2001\n")?;
    pod.end()
}

fn strict_groups(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    cri.need_major(2, "policy for supplemental groups")?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").script("id -G").security(|it| {
        (it.run_as_user, it.run_as_group) = (id(1000), id(1000));
        it.supplemental_groups = vec![3456];
        it.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    });
    equal("output", container.run()?.as_str(), "1000 3456\n")?;
    pod.end()
}

/// The set of capabilities of this kind of the container's shell.
fn capability_set(text: &str, kind: &str) -> Result<u64, Failure> {
    let found = text.lines().find_map(|line| line.strip_prefix(&format!("{kind}:")));
    let set = found.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.ok_or_else(|| Failure::Wrong(format!("no {kind} in {text}")))
}

const STATUS: &str = "cat /proc/self/status";
const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1;

fn capabilities(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let default = capability_set(&pod.container("one").script(STATUS).run()?, "CapEff")?;
    check(default & CHOWN != 0 && default & NET_ADMIN == 0, || format!("default {default:x}"))?;
    let changed = pod.container("two").script(STATUS).security(|it| {
        let wanted = it.capabilities.get_or_insert_default();
        (wanted.add_capabilities, wanted.drop_capabilities) =
            (vec!["NET_ADMIN".into()], vec!["CHOWN".into()]);
    });
    let changed = changed.run()?;
    for kind in ["CapEff", "CapBnd", "CapPrm"] {
        equal(kind, capability_set(&changed, kind)?, (default | NET_ADMIN) & !CHOWN)?;
    }
    let none = pod.container("three").script(STATUS).security(|it| {
        it.capabilities.get_or_insert_default().drop_capabilities = vec!["ALL".into()];
    });
    equal("all dropped", capability_set(&none.run()?, "CapBnd")?, 0)?;
    pod.end()
}

fn no_new_privileges(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    for (name, wanted, text) in [("one", true, "NoNewPrivs:\t1"), ("two", false, "NoNewPrivs:\t0")] {
        let shown = pod.container(name).script(STATUS).security(|it| it.no_new_privs = wanted).run()?;
        contains("status", &shown, text)?;
    }
    pod.end()
}

fn read_only_root(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let volume = cri.traces.folder("volume")?;
    let script = "touch /file 2>/dev/null || echo refused; touch /data/file && echo written";
    let container = pod.container("one").mount(&volume, "/data").script(script);
    let container = container.security(|it| it.readonly_rootfs = true);
    equal("output", container.run()?.as_str(), "refused\nwritten\n")?;
    pod.end()
}

fn seccomp(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let profile = cri.traces.folder("seccomp")?.join("no-mkdir.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(&profile, text).map_err(Failure::io("can't write a profile"))?;
    let script = "grep Seccomp: /proc/self/status; mkdir /tmp/d 2>/dev/null && echo made || echo refused";
    let local = profile.display().to_string();
    for (name, kind, reference, wanted) in [
        ("default", ProfileType::RuntimeDefault, "", "Seccomp:\t2\nmade\n"),
        ("none", ProfileType::Unconfined, "", "Seccomp:\t0\nmade\n"),
        ("local", ProfileType::Localhost, local.as_str(), "Seccomp:\t2\nrefused\n"),
    ] {
        let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: reference.to_owned() };
        let container = pod.container(name).script(script).security(|it| it.seccomp = Some(profile));
        equal(name, container.run()?.as_str(), wanted)?;
    }
    pod.end()
}

fn privileged(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    // A device of the node: of a privileged container's devices it is none, with either way to handle them.
    for handler in ["", "other-devices"] {
        let pod = cri.pod("b").security(|it| it.privileged = true);
        let pod = if handler.is_empty() { pod } else { pod.variant(handler) };
        let pod = pod.run()?;
        let script = "ls /dev; echo x >/dev/null && head -c 1 /dev/zero | wc -c";
        let shown = pod.container("one").script(script).security(|it| it.privileged = true).run()?;
        check(shown.ends_with("\n1\n"), || format!("null and zero don't work: {shown}"))?;
        if context.options.runtime != RUNC {
            let nodes = ["kvm", "mem", "loop-control", "vda", "sda", "rtc0"];
            let there = |name: &&&str| shown.lines().any(|line| line == **name);
            let found: Vec<_> = nodes.iter().filter(there).collect();
            check(found.is_empty(), || format!("devices of the node: {found:?}"))?;
        }
        pod.end()?;
    }
    let pod = cri.pod("a").security(|it| it.privileged = true).run()?;
    let script = "cat /proc/self/status; mount -t tmpfs none /tmp && echo mounted; \
                  echo 0 >/proc/sys/kernel/printk_devkmsg 2>/dev/null; test -w /sys/fs/cgroup && echo writable";
    let shown = pod.container("one").script(script).security(|it| it.privileged = true).run()?;
    let set = capability_set(&shown, "CapEff")?;
    check(set.count_ones() >= 38, || format!("capabilities {set:x}"))?;
    contains("output", &shown, "mounted\n")?;
    contains("output", &shown, "writable\n")?;
    let plain = pod.container("two").script("mount -t tmpfs none /tmp 2>/dev/null || echo refused").run()?;
    equal("a plain container", plain.as_str(), "refused\n")?;
    pod.end()
}

fn sysctls(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").linux(|linux| {
        linux.sysctls.insert("net.ipv4.ip_local_port_range".into(), "20000 30000".into());
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    });
    let pod = pod.run()?;
    let script = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced";
    let shown = pod.container("one").script(script).run()?;
    equal("values", shown.split_whitespace().collect::<Vec<_>>(), vec!["20000", "30000", "1"])?;
    pod.end()
}

/// The node enforces neither, so all that can be seen is that nothing fails.
fn labels(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let selinux =
        || SeLinuxOption { r#type: "container_t".into(), level: "s0:c1,c2".into(), ..Default::default() };
    let unconfined =
        || SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..Default::default() };
    let pod = cri.pod("a").security(|it| {
        (it.selinux_options, it.apparmor) = (Some(selinux()), Some(unconfined()));
    });
    let pod = pod.run()?;
    let folder = cri.traces.folder("volume")?;
    let container = pod.container("one").mount_with(&folder, "/data", |mount| mount.selinux_relabel = true);
    let container = container.security(|it| {
        (it.selinux_options, it.apparmor) = (Some(selinux()), Some(unconfined()));
    });
    equal("output", container.script("touch /data/file && echo well").run()?.as_str(), "well\n")?;
    pod.end()
}

fn masked(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "cat /proc/version | wc -c; echo 0 2>/dev/null >/proc/sys/kernel/printk || echo refused";
    let container = pod.container("one").script(script).security(|it| {
        (it.masked_paths, it.readonly_paths) = (vec!["/proc/version".into()], vec!["/proc/sys".into()]);
    });
    equal("output", container.run()?.as_str(), "0\nrefused\n")?;
    pod.end()
}
