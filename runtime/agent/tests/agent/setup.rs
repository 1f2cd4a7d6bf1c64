//! What a container's processes find: namespaces, mounts, limits, filters.

use nacre_protocol::SHARED_FOLDER;
use nacre_protocol::agent::*;
use nacre_protocol::nacre::{AddVolumesRequest, ChangeTreeRequest, RemoveVolumesRequest, TreeEntry};
use nacre_protocol::oci;
use nacre_protocol::protobuf::MessageField;
use nacre_protocol::types::{IPAddress, Interface};

use crate::needs_machine;
use crate::support::*;

/// Runs a script with a changed specification and returns what it printed.
async fn output(agent: &Agent, id: &str, script: &str, change: impl FnOnce(&mut oci::Spec)) -> String {
    let mut spec = spec(&agent.root(id), &["/bin/sh", "-c", script]);
    change(&mut spec);
    agent.create(id, spec).await.unwrap();
    agent.start_container(id).await.unwrap();
    let outcome = agent.outcome(id, "").await;
    assert_eq!(outcome.stderr, "", "{outcome:?}");
    outcome.stdout
}

#[tokio::test]
async fn the_process_is_what_the_specification_says() {
    needs_machine!();
    let agent = Agent::start().await;
    let script =
        "id; pwd; echo $A $HOME; hostname; ulimit -n; grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status";
    let shown = output(&agent, "web", script, |spec| {
        let process = spec.Process.mut_or_insert_default();
        process.User = MessageField::some(oci::User {
            UID: 1000,
            GID: 7,
            AdditionalGids: vec![8, 9],
            ..Default::default()
        });
        process.Cwd = "/work".into();
        process.Env.push("A=b c".into());
        process.NoNewPrivileges = true;
        process.Rlimits = vec![oci::POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Soft: 100,
            Hard: 200,
            ..Default::default()
        }];
    })
    .await;
    let expected = "uid=1000(app) gid=7 groups=8,9\n/work\nb c /home/app\npod\n100\n";
    assert!(shown.starts_with(expected), "{shown}");
    assert!(shown.contains("CapEff:\t0000000000000000"), "{shown}");
    assert!(shown.contains("CapBnd:\t00000000000000e3"), "{shown}");
    assert!(shown.contains("NoNewPrivs:\t1"), "{shown}");
}

#[tokio::test]
async fn the_files_are_what_the_specification_says() {
    needs_machine!();
    let agent = Agent::start().await;
    let script = "(echo x > /file) 2>/dev/null || echo read-only; cat /work/secret; \
        (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused; echo x > /extra/x && echo written; \
        grep -c ' /extra ' /proc/mounts; dd if=/dev/zero of=/dev/shm/x bs=1k count=100 2>/dev/null; ls -s /dev/shm/x; \
        cat /bound";
    std::fs::write(agent.folder.path().join("bound"), "from outside\n").unwrap();
    let bound = agent.folder.path().join("bound").display().to_string();
    let shown = output(&agent, "web", script, |spec| {
        std::fs::write(agent.folder.path().join("web/work/secret"), "secret").unwrap();
        spec.Linux.mut_or_insert_default().MaskedPaths.push("/work/secret".into());
        spec.Root.mut_or_insert_default().Readonly = true;
        spec.Mounts.push(mount("/extra", "tmpfs", &["nosuid", "size=64k"]));
        let mut bind = mount("/bound", "bind", &["rbind", "ro"]);
        bind.source = bound;
        spec.Mounts.push(bind);
    })
    .await;
    assert_eq!(shown, "read-only\nrefused\nwritten\n1\n    64 /dev/shm/x\nfrom outside\n");
}

#[tokio::test]
async fn system_calls_are_filtered_in_the_container_and_in_what_joins_it() {
    needs_machine!();
    let agent = Agent::start().await;
    let mut filtered = spec(&agent.root("web"), &["/bin/sh", "-c", "sync; mkdir /x 2>&1; read line"]);
    std::os::unix::fs::symlink("busybox", agent.folder.path().join("web/bin/mkdir")).unwrap();
    let refused = |name: &str, args| oci::LinuxSyscall {
        Names: vec![name.into()],
        Action: "SCMP_ACT_ERRNO".into(),
        ErrnoRet: Some(oci::linux_syscall::ErrnoRet::Errnoret(95)),
        Args: args,
        ..Default::default()
    };
    // The masked comparison is the one that decides: mode & 0111 == 0111, true for 0777.
    let masked = oci::LinuxSeccompArg {
        Index: 1,
        Value: 0o111,
        ValueTwo: 0o111,
        Op: "SCMP_CMP_MASKED_EQ".into(),
        ..Default::default()
    };
    filtered.Linux.mut_or_insert_default().Seccomp = MessageField::some(oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".into(),
        Architectures: vec!["SCMP_ARCH_X86_64".into()],
        Syscalls: vec![refused("mkdir", vec![masked])],
        ..Default::default()
    });
    agent.create("web", filtered).await.unwrap();
    agent.start_container("web").await.unwrap();
    let refusal = "mkdir: can't create directory '/x': ";
    agent.read_until("web", "", "Operation not supported").await;
    agent.exec("web", "x", process(&["/bin/mkdir", "/x"])).await.unwrap();
    let outcome = agent.outcome("web", "x").await;
    assert_eq!((outcome.status, outcome.stderr), (1, format!("{refusal}Operation not supported\n")));
}

#[tokio::test]
async fn containers_share_a_pid_namespace_if_the_pod_says_so() {
    needs_machine!();
    let agent = Agent::start().await;
    let create = async |id: &str, script: &str| {
        let request = CreateContainerRequest {
            container_id: id.into(),
            OCI: MessageField::some(spec(&agent.root(id), &["/bin/sh", "-c", script])),
            sandbox_pidns: true,
            ..Default::default()
        };
        agent.calls.create_container(context(), &request).await.unwrap();
        agent.start_container(id).await.unwrap();
    };
    let first = "sleep 1000 & until grep -q sleep /proc/$!/comm; do sleep 0.1; done; echo $$; read line";
    create("first", first).await;
    assert_ne!(agent.read_until("first", "", "\n").await, "1\n");
    create("second", "grep -l sleep /proc/[0-9]*/comm | cat").await;
    assert!(agent.outcome("second", "").await.stdout.contains("/comm"));
    // With a namespace that others use, too, the rest of a container does not go by itself.
    agent.write("first", "", b"\n").await;
    assert_eq!(agent.wait("first", "").await.unwrap(), 0);
    create("third", "grep -l sleep /proc/[0-9]*/comm | cat").await;
    assert_eq!(agent.outcome("third", "").await.stdout, "");
}

#[tokio::test]
async fn ipc_and_network_are_the_pods() {
    needs_machine!();
    let agent = Agent::start().await;
    let script = "for n in ipc net uts; do readlink /proc/self/ns/$n; done; ls /sys/class/net | cat";
    let first = output(&agent, "first", script, |_| {}).await;
    let second = output(&agent, "second", script, |_| {}).await;
    assert_eq!(first, second);
    assert!(first.contains("lo"), "{first}");
}

#[tokio::test]
async fn network_parameters_reach_the_pods_network() {
    needs_machine!();
    let agent = Agent::start().await;
    let shown = output(
        &agent,
        "web",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni",
        |spec| {
            let linux = spec.Linux.mut_or_insert_default();
            linux.Sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "99".into());
            linux.Sysctl.insert("kernel.shmmni".into(), "123".into());
        },
    )
    .await;
    assert_eq!(shown, "99\n123\n");
}

#[tokio::test]
async fn storages_are_mounted_and_copied_files_are_seen() {
    needs_machine!();
    let agent = Agent::start().await;
    let path = "/run/kata-containers/shared/containers/web-0123456789abcdef-hosts";
    let copy = CopyFileRequest {
        path: path.into(),
        file_size: 6,
        file_mode: 0o100644,
        data: b"hosts\n".to_vec(),
        ..Default::default()
    };
    agent.calls.copy_file(context(), &copy).await.unwrap();
    let before = agent.inside();
    let point = "/run/kata-containers/web/scratch";
    let storage = Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: vec!["size=32k".into()],
        mount_point: point.into(),
        ..Default::default()
    };
    let mut spec =
        spec(&agent.root("web"), &["/bin/sh", "-c", "cat /etc/hosts; grep ' /scratch ' /proc/mounts"]);
    for (source, destination) in [(path, "/etc/hosts"), (point, "/scratch")] {
        let mut bind = mount(destination, "bind", &["rbind", "rw"]);
        bind.source = source.into();
        spec.Mounts.push(bind);
    }
    let request = CreateContainerRequest {
        container_id: "web".into(),
        OCI: MessageField::some(spec),
        storages: vec![storage],
        ..Default::default()
    };
    agent.calls.create_container(context(), &request).await.unwrap();
    agent.start_container("web").await.unwrap();
    let shown = agent.outcome("web", "").await.stdout;
    assert!(shown.starts_with("hosts\ntmpfs /scratch tmpfs") && shown.contains("size=32k"), "{shown}");
    agent.remove("web").await.unwrap();
    agent.settles_to(&before).await;
}

#[tokio::test]
async fn the_network_is_set_up_by_calls() {
    needs_machine!();
    let agent = Agent::start().await;
    if !agent.run_inside(&["ip", "link", "add", "eth9", "address", "02:00:00:00:00:09", "type", "veth"]) {
        not_run_here("no ip(8), or no veth in this kernel");
        return;
    }
    let interface = Interface {
        name: "eth0".into(),
        hwAddr: "02:00:00:00:00:09".into(),
        IPAddresses: vec![
            IPAddress { address: "10.1.2.3".into(), mask: "24".into(), ..Default::default() },
            IPAddress { address: "fd00::3".into(), mask: "64".into(), ..Default::default() },
        ],
        mtu: 1400,
        ..Default::default()
    };
    let request = UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() };
    agent.calls.update_interface(context(), &request).await.unwrap();
    agent.calls.update_interface(context(), &request).await.unwrap();
    let route = |dest: &str, gateway: &str, scope| nacre_protocol::types::Route {
        dest: dest.into(),
        gateway: gateway.into(),
        device: "eth0".into(),
        scope,
        ..Default::default()
    };
    // The gateway of the first can be reached by the second only.
    let routes = Routes {
        Routes: vec![route("", "10.9.0.1", 0), route("10.9.0.0/16", "", 253)],
        ..Default::default()
    };
    let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
    let all = agent.calls.update_routes(context(), &request).await.unwrap().Routes;
    assert!(all.iter().any(|route| route.gateway == "10.9.0.1" && route.dest.is_empty()), "{all:?}");
    agent.calls.update_routes(context(), &request).await.unwrap();
    let neighbor = nacre_protocol::types::ARPNeighbor {
        toIPAddress: MessageField::some(IPAddress { address: "10.1.2.9".into(), ..Default::default() }),
        device: "eth0".into(),
        lladdr: "02:00:00:00:00:10".into(),
        state: 128,
        ..Default::default()
    };
    let neighbors = ARPNeighbors { ARPNeighbors: vec![neighbor], ..Default::default() };
    let request = AddARPNeighborsRequest { neighbors: MessageField::some(neighbors), ..Default::default() };
    agent.calls.add_arp_neighbors(context(), &request).await.unwrap();
    let links =
        agent.calls.list_interfaces(context(), &ListInterfacesRequest::new()).await.unwrap().Interfaces;
    let link = links.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!((link.mtu, link.hwAddr.as_str()), (1400, "02:00:00:00:00:09"));
    let has = |text: &str| link.IPAddresses.iter().any(|address| address.address == text);
    assert!(has("10.1.2.3") && has("fd00::3"), "{link:?}");
}

#[tokio::test]
async fn use_of_resources_is_told_and_limited() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "read line").await;
    let request = StatsContainerRequest { container_id: "web".into(), ..Default::default() };
    let stats = agent.calls.stats_container(context(), &request).await.unwrap().cgroup_stats.unwrap();
    assert!(stats.cpu_stats.cpu_usage.total_usage > 0);
    if !agent.limits_memory() {
        not_run_here("no cgroup v2 memory controller for its part about limits");
        return;
    }
    let resources = oci::LinuxResources {
        Memory: MessageField::some(oci::LinuxMemory { Limit: 64 << 20, ..Default::default() }),
        ..Default::default()
    };
    let update = UpdateContainerRequest {
        container_id: "web".into(),
        resources: MessageField::some(resources),
        ..Default::default()
    };
    agent.calls.update_container(context(), &update).await.unwrap();
    let stats = agent.calls.stats_container(context(), &request).await.unwrap().cgroup_stats.unwrap();
    assert_eq!(stats.memory_stats.usage.limit, 64 << 20);
}

#[tokio::test]
async fn a_container_over_its_memory_limit_is_killed_and_told_of() {
    needs_machine!();
    let agent = Agent::start().await;
    if !agent.limits_memory() {
        not_run_here("no cgroup v2 memory controller");
        return;
    }
    let mut hungry = spec(&agent.root("web"), &["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=100M"]);
    hungry.Linux.mut_or_insert_default().Resources = MessageField::some(oci::LinuxResources {
        Memory: MessageField::some(oci::LinuxMemory {
            Limit: 16 << 20,
            Swap: 16 << 20,
            ..Default::default()
        }),
        ..Default::default()
    });
    agent.create("web", hungry).await.unwrap();
    agent.start_container("web").await.unwrap();
    assert_eq!(agent.wait("web", "").await.unwrap(), 137);
    let event = agent.calls.get_oom_event(context(), &GetOOMEventRequest::new()).await.unwrap();
    assert_eq!(event.container_id, "web");
}

#[tokio::test]
async fn volumes_of_the_pod_change_below_a_container_and_its_last_words_are_told() {
    needs_machine!();
    let agent = Agent::start().await;
    let top = format!("{SHARED_FOLDER}/volume-test");
    let storage = Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: top.clone(),
        options: vec!["mode=2777".into(), "size=64k".into()],
        shared: true,
        ..Default::default()
    };
    let add = AddVolumesRequest { storages: vec![storage.clone()], ..Default::default() };
    agent.extension.add_volumes(context(), &add).await.unwrap();
    let put = |state: &str| {
        let entry = |path: &str, mode: u32, data: &str| TreeEntry {
            path: path.into(),
            mode,
            data: data.into(),
            ..Default::default()
        };
        vec![
            entry(state, libc::S_IFDIR | 0o755, ""),
            entry(&format!("{state}/key"), libc::S_IFREG | 0o644, state),
            entry("..data", libc::S_IFLNK, state),
        ]
    };
    let change = async |state: &str, gone: &[&str]| {
        let remove = gone.iter().map(|path| path.as_bytes().to_vec()).collect();
        let request = ChangeTreeRequest { root: top.clone(), put: put(state), remove, ..Default::default() };
        agent.extension.change_tree(context(), &request).await.unwrap();
    };
    change("..1", &[]).await;

    // The container ends when it sees the second state.
    let script = "until [ \"$(cat /map/..data/key)\" = ..2 ]; do :; done; ls -A /map; stat -c %a /map; \
        dd if=/dev/zero of=/map/x bs=1k count=100 2>/dev/null || echo full; printf 'last words' > /why";
    let mut spec = spec(&agent.root("web"), &["/bin/sh", "-c", script]);
    let mut bind = mount("/map", "bind", &["rbind"]);
    bind.source = top.clone();
    spec.Mounts.push(bind);
    spec.Annotations.insert("io.kubernetes.container.terminationMessagePath".into(), "/why".into());
    let request = CreateContainerRequest { storages: vec![storage], ..agent.request("web", spec) };
    agent.calls.create_container(context(), &request).await.unwrap();
    agent.start_container("web").await.unwrap();
    change("..2", &["..1"]).await;

    let outcome = agent.outcome("web", "").await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("..2\n..data\n2777\nfull\n", ""));
    let request = GetDiagnosticDataRequest {
        log_type: "termination_log".into(),
        container_id: "web".into(),
        ..Default::default()
    };
    let told = agent.calls.get_diagnostic_data(context(), &request).await.unwrap();
    assert_eq!(told.data, "last words");
    let remove = RemoveVolumesRequest { mount_points: vec![top.clone()], ..Default::default() };
    agent.extension.remove_volumes(context(), &remove).await.unwrap();
}
