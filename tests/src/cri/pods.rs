//! Pods: their life, their containers, what they share, and what they may not have.

use k8s_cri::v1::{
    CheckpointContainerRequest, ContainerState, NamespaceMode, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue,
};

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Outcome, check, contains, equal};

pub const TESTS: &[Test] = &[
    Test::new("pods/run-to-ready", "a pod is ready when it has run, and listed as such", run_to_ready),
    Test::new("pods/stop-and-remove", "stop and remove work twice, and in the wrong order", stop_and_remove),
    Test::new(
        "pods/stopped-status",
        "a stopped pod is known, not ready, and has no running container",
        stopped,
    ),
    Test::new("pods/several-containers", "containers of a pod run beside each other", several),
    Test::new("pods/init-containers", "containers run one after the other before the main one", init),
    Test::new("pods/restart-in-place", "a container of the same name follows one that ended", restart),
    Test::new("pods/host-name", "all containers have the pod's host name", host_name),
    Test::new(
        "pods/own-processes",
        "without a shared namespace a container is its own first process",
        own_pids,
    ),
    Test::new("pods/shared-processes", "with a shared namespace containers see each other", shared_pids),
    Test::new("pods/shared-ipc", "containers of a pod share their IPC namespace", shared_ipc),
    Test::new("pods/verbose-status", "verbose status has the runtime's details", verbose),
    Test::new(
        "pods/handler-variants",
        "a handler of the other kind of privileged_without_host_devices works",
        variants,
    ),
    Test::new("pods/unknown-handler", "a handler that containerd does not know is refused", unknown_handler),
    Test::new("pods/host-network", "a pod on the node's network", host_network)
        .not_in_a_vm("a pod's machine has a network of its own", "host"),
    Test::new("pods/host-pid", "a pod with the node's processes", host_pid)
        .not_in_a_vm("a pod's machine has processes of its own", "host"),
    Test::new("pods/host-ipc", "a pod with the node's IPC", host_ipc)
        .not_in_a_vm("a pod's machine has IPC of its own", "host"),
    Test::new("pods/checkpoint", "a checkpoint is refused as not implemented", checkpoint),
    Test::new("pods/created-only", "a container that never started is removed with its pod", created_only),
    Test::new(
        "pods/missing-image",
        "a container of an unknown image is refused and the pod stays well",
        no_image,
    ),
    Test::new("pods/missing-program", "a program that is not there is named in the error", no_program),
];

fn run_to_ready(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    pod.is(PodSandboxState::SandboxReady)?;
    let state = Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() });
    let ready = cri.pods_like(PodSandboxFilter { state, id: pod.id.clone(), ..Default::default() })?;
    equal("pods in the list", ready.len(), 1)?;
    let listed = ready.into_iter().next().unwrap_or_default();
    equal("handler in the list", listed.runtime_handler.as_str(), cri.handler.as_str())?;
    equal("name in the list", listed.metadata.unwrap_or_default().name.as_str(), "a")?;
    pod.end()
}

fn stop_and_remove(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    pod.stop()?;
    pod.stop()?;
    container.is(ContainerState::ContainerExited)?;
    container.stop(1)?;
    pod.remove()?;
    pod.remove()?;
    pod.stop()?;
    container.remove()?;
    equal("pods", cri.pods()?.len(), 0)?;
    // Removing stops what still runs.
    let pod = cri.pod("b").run()?;
    pod.container("one").start()?;
    pod.remove()?;
    equal("pods", cri.pods()?.len(), 0)
}

fn stopped(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    pod.stop()?;
    pod.is(PodSandboxState::SandboxNotready)?;
    container.is(ContainerState::ContainerExited)?;
    let refused = pod.container("two").refused()?;
    check(!refused.is_empty(), || "a refusal without words".into())?;
    pod.remove()
}

fn several(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let names = ["one", "two", "three"];
    let mut containers = Vec::new();
    for name in names {
        let script = "echo I am $NAME; exec sleep 3600";
        containers.push(pod.container(name).env("NAME", name).script(script).start()?);
    }
    for (name, container) in names.iter().zip(&containers) {
        container.wait_for(&format!("I am {name}\n"))?;
        container.is(ContainerState::ContainerRunning)?;
    }
    // The end of one leaves the others alone.
    if let [first, second, ..] = containers.as_slice() {
        first.stop(0)?;
        first.remove()?;
        equal("exec in the second", second.shell("echo well")?.as_str(), "well\n")?;
    }
    pod.end()
}

fn init(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    for name in ["init-one", "init-two"] {
        let container = pod.container(name).script("echo prepared").start()?;
        let status = container.exited(0)?;
        equal("reason", status.reason.as_str(), "Completed")?;
        equal("output", container.output()?.as_str(), "prepared\n")?;
    }
    let main = pod.container("main").start()?;
    main.is(ContainerState::ContainerRunning)?;
    pod.is(PodSandboxState::SandboxReady)?;
    pod.end()
}

fn restart(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let first = pod.container("one").script("touch /tmp/mark; echo first; exit 7").start()?;
    equal("reason", first.exited(7)?.reason.as_str(), "Error")?;
    let script = "test -e /tmp/mark && echo stale; echo second; exec sleep 3600";
    let second = pod.container("one").attempt(1).script(script).start()?;
    second.wait_for("second\n")?;
    equal("output", second.output()?.as_str(), "second\n")?;
    first.remove()?;
    second.is(ContainerState::ContainerRunning)?;
    equal("attempt", second.status()?.metadata.unwrap_or_default().attempt, 1)?;
    pod.end()
}

fn host_name(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").with(|config| config.hostname = "oyster".into()).run()?;
    for name in ["one", "two"] {
        let shown = pod.container(name).script("hostname; cat /etc/hostname; echo $HOSTNAME").run()?;
        equal("host name", shown.as_str(), "oyster\noyster\noyster\n")?;
    }
    pod.end()
}

fn own_pids(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    pod.container("one").command(&["sleep", "4711"]).start()?;
    let two = pod.container("two").command(&["sleep", "4712"]).start()?;
    contains("first process", &two.shell("tr '\\0' ' ' </proc/1/cmdline")?, "sleep 4712")?;
    let seen = two.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    check(!seen.contains("4711"), || format!("it sees the other's process: {seen}"))?;
    pod.end()
}

fn shared_pids(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").namespaces(|it| it.pid = NamespaceMode::Pod.into()).run()?;
    pod.container("one").command(&["sleep", "4711"]).start()?;
    let two = pod.container("two").command(&["sleep", "4712"]).start()?;
    let seen = two.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    contains("the processes", &seen, "sleep 4711")?;
    contains("the processes", &seen, "sleep 4712")?;
    let first = two.shell("tr '\\0' ' ' </proc/1/cmdline")?;
    check(!first.contains("sleep 471"), || format!("a container is the first process: {first}"))?;
    // A container's end takes only its own processes along.
    two.stop(0)?;
    let three = pod.container("three").start()?;
    let seen = three.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    contains("the processes", &seen, "sleep 4711")?;
    check(!seen.contains("4712"), || format!("a stopped container's process is there: {seen}"))?;
    pod.end()
}

fn shared_ipc(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let one = pod.container("one").start()?;
    let two = pod.container("two").start()?;
    for namespace in ["ipc", "uts", "net"] {
        let of = format!("readlink /proc/self/ns/{namespace}");
        equal(&format!("{namespace} namespace"), one.shell(&of)?, two.shell(&of)?)?;
    }
    for namespace in ["pid", "mnt"] {
        let of = format!("readlink /proc/self/ns/{namespace}");
        let (first, second) = (one.shell(&of)?, two.shell(&of)?);
        check(first != second, || format!("both have {first} as their {namespace} namespace"))?;
    }
    pod.end()
}

fn verbose(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let mut status = pod.status()?;
    let handler = status.status.unwrap_or_default().runtime_handler;
    equal("handler", handler.as_str(), cri.handler.as_str())?;
    let info = status.info.remove("info").unwrap_or_default();
    let info: serde_json::Value =
        serde_json::from_str(&info).map_err(crate::failure::Failure::other("info is no JSON"))?;
    let pid = info.pointer("/pid").and_then(serde_json::Value::as_u64).unwrap_or(0);
    check(pid > 1, || format!("the pod's process is {pid}: {info}"))?;
    check(info.pointer("/config/metadata/name").is_some(), || format!("no configuration: {info}"))?;
    pod.end()
}

fn variants(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").variant("other-devices").run()?;
    equal("output", pod.container("one").script("echo well").run()?.as_str(), "well\n")?;
    pod.end()
}

fn unknown_handler(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    contains("the error", &cri.pod("a").variant("no-such").refused()?, "no-such")?;
    equal("pods", cri.pods()?.len(), 0)
}

fn host_network(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    // As kubelet does: such a pod has the node's name.
    let pod = cri.pod("a").with(|config| config.hostname.clear());
    let pod = pod.namespaces(|it| it.network = NamespaceMode::Node.into()).run()?;
    contains("addresses", &pod.container("one").script("ip address").run()?, "10.0.2.15")?;
    pod.end()
}

fn host_pid(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").namespaces(|it| it.pid = NamespaceMode::Node.into()).run()?;
    let seen = pod.container("one").script("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").run()?;
    contains("the processes", &seen, "/usr/bin/containerd")?;
    pod.end()
}

fn host_ipc(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").namespaces(|it| it.ipc = NamespaceMode::Node.into()).run()?;
    let node =
        std::fs::read_link("/proc/self/ns/ipc").map_err(crate::failure::Failure::io("no namespace"))?;
    let seen = pod.container("one").script("readlink /proc/self/ns/ipc").run()?;
    equal("IPC namespace", seen.trim(), &node.display().to_string())?;
    pod.end()
}

fn checkpoint(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let location = cri.traces.folder("checkpoint")?.join("x.tar").display().to_string();
    let request = CheckpointContainerRequest { container_id: container.id.clone(), location, timeout: 10 };
    let answer =
        cri.call("CheckpointContainer", async |mut client| client.checkpoint_container(request).await);
    let Err(failure) = answer else { return crate::failure::wrong("a checkpoint was made") };
    let said = failure.refusal()?;
    // containerd 2 has it, and needs a program that nodes don't have.
    check(said.contains("Unimplemented") || said.contains("criu"), || said.clone())?;
    equal("exec after it", container.shell("echo well")?.as_str(), "well\n")?;
    pod.end()
}

fn created_only(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").create()?;
    container.is(ContainerState::ContainerCreated)?;
    let other = pod.container("two").create()?;
    other.remove()?;
    pod.end()
}

fn no_image(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let said = pod.container("one").image("nacre.test/no-such:1").refused()?;
    contains("the error", &said, "not found")?;
    equal("output", pod.container("two").script("echo well").run()?.as_str(), "well\n")?;
    pod.end()
}

fn no_program(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let said = pod.container("one").command(&["/no/such/program"]).refused()?;
    contains("the error", &said, "/no/such/program")?;
    equal("output", pod.container("two").script("echo well").run()?.as_str(), "well\n")?;
    pod.end()
}
