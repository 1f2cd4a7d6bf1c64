//! Size: what limits hold inside, and what is reported of them.

use std::fs;
use std::path::Path;

use k8s_cri::v1::{ContainerState, LinuxContainerResources, UInt64Value};

use super::client::Cri;
use super::traces::Traces;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("size/limits", "a container's limits are its cgroup's", limits),
    Test::new("size/out-of-memory", "a container past its limit is ended as OOMKilled", out_of_memory),
    Test::new("size/update", "limits change while the container runs", update),
    Test::new("size/container-statistics", "statistics of a container agree with what it does", statistics),
    Test::new(
        "size/pod-statistics",
        "statistics of a pod agree with its cgroup and its containers'",
        pod_statistics,
    ),
    Test::new("size/machine", "a pod's machine has the pod's CPUs and memory", machine).only_nacre(),
    Test::new(
        "size/machine-in-cgroup",
        "a machine fits the pod's cgroup, or is refused with the numbers",
        fits,
    )
    .only_nacre(),
    Test::new("size/pod-cgroup", "a pod's processes are in its cgroup", pod_cgroup),
];

const MIB: i64 = 1 << 20;

fn limits(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").resources(|it| it.memory_limit_in_bytes = 200 * MIB).run()?;
    let container = pod.container("one").resources(|it| {
        (it.memory_limit_in_bytes, it.cpu_period, it.cpu_quota) = (100 * MIB, 100_000, 50_000);
        it.cpu_shares = 512;
    });
    let container = container.start()?;
    let file = |name: &str| container.shell(&format!("cat /sys/fs/cgroup/{name}"));
    equal("memory.max", file("memory.max")?.trim(), "104857600")?;
    equal("cpu.max", file("cpu.max")?.trim(), "50000 100000")?;
    pod.end()
}

/// The machine of a pod with two CPUs and so many MiB, as a container sees it: CPUs, and memory in MiB.
fn seen(cri: &Cri, memory: i64) -> Result<(u64, i64), Failure> {
    let pod = cri.pod("a").resources(|it| {
        (it.memory_limit_in_bytes, it.cpu_period, it.cpu_quota) = (memory * MIB, 100_000, 200_000);
    });
    let pod = pod.run()?;
    let shown = pod.container("one").script("nproc; sed -n 's/MemTotal: *//p' /proc/meminfo").run()?;
    pod.end()?;
    let mut numbers = shown.split_whitespace().filter_map(|word| word.parse::<i64>().ok());
    let (cpus, kib) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok((u64::try_from(cpus).unwrap_or(0), kib / 1024))
}

/// What the kernel of a guest of a few hundred MiB keeps of its memory from MemTotal, at the most.
const OF_KERNEL_MIB: i64 = 48;

fn machine(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let (cpus, mib) = seen(&cri, 300)?;
    equal("CPUs", cpus, 2)?;
    // With vm.memory_overhead_mib.
    let whole = 300 + 64;
    check((whole - OF_KERNEL_MIB..=whole).contains(&mib), || format!("{mib} MiB instead of {whole}"))
}

fn fits(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let limit = Traces::cgroup_folder(&cri.traces.cgroup("a")?).join("memory.max");
    let set = |mib: i64| {
        fs::write(&limit, (mib * MIB).to_string()).map_err(Failure::io(limit.display().to_string()))
    };
    set(300)?;
    let (_, mib) = seen(&cri, 300)?;
    // Less vm.host_overhead_mib and 1/128 for page tables.
    let whole = 300 - 2 - 16;
    check((whole - OF_KERNEL_MIB..=whole).contains(&mib), || format!("{mib} MiB instead of {whole}"))?;
    set(60)?;
    let refusal = cri.pod("a").refused()?;
    for part in ["limited to 60 MiB", "leaves 43 MiB", "needs at least 64 MiB"] {
        contains("the refusal", &refusal, part)?;
    }
    Ok(())
}

fn out_of_memory(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let neighbour = pod.container("two").start()?;
    let hungry = pod.container("one").command(&["nacre-probe", "eat", "200"]);
    let hungry = hungry.resources(|it| {
        (it.memory_limit_in_bytes, it.memory_swap_limit_in_bytes) = (32 * MIB, 32 * MIB);
    });
    equal("reason", hungry.start()?.exited(137)?.reason.as_str(), "OOMKilled")?;
    neighbour.is(ContainerState::ContainerRunning)?;
    equal("exec in another container", neighbour.shell("echo well")?.as_str(), "well\n")?;
    pod.end()
}

fn update(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").resources(|it| it.memory_limit_in_bytes = 64 * MIB).start()?;
    container.update(LinuxContainerResources {
        memory_limit_in_bytes: 96 * MIB,
        cpu_period: 100_000,
        cpu_quota: 70_000,
        ..Default::default()
    })?;
    equal("memory.max", container.shell("cat /sys/fs/cgroup/memory.max")?.trim(), "100663296")?;
    equal("cpu.max", container.shell("cat /sys/fs/cgroup/cpu.max")?.trim(), "70000 100000")?;
    pod.end()
}

fn value(it: Option<UInt64Value>) -> u64 {
    it.map_or(0, |it| it.value)
}

fn statistics(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").resources(|it| it.memory_limit_in_bytes = 128 * MIB);
    let container = container.command(&["nacre-probe", "eat", "20"]).start()?;
    container.wait_for("ate 20 MiB")?;
    eventually(SECONDS, || {
        let found = container.statistics()?;
        let memory = found.memory.unwrap_or_default();
        let (usage, set) = (value(memory.usage_bytes), value(memory.working_set_bytes));
        let range = 20 << 20..=128 << 20;
        check(range.contains(&usage) && range.contains(&set), || {
            format!("usage {usage}, working set {set}")
        })?;
        let available = value(memory.available_bytes);
        check(available + set == 128 << 20, || format!("available {available}, working set {set}"))?;
        let cpu = value(found.cpu.unwrap_or_default().usage_core_nano_seconds);
        check(cpu > 0, || "no CPU time".into())?;
        // What the container's own group says, a moment later.
        let script = "cd /sys/fs/cgroup; cat memory.current; sed -n 's/^usage_usec //p' cpu.stat";
        let inside: Vec<u64> =
            container.shell(script)?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [memory, microseconds] = inside[..] else { return wrong("the group has no counters") };
        near("memory", usage, memory, 8 << 20)?;
        near("CPU time", cpu / 1000, microseconds, 2_000_000)
    })?;
    pod.end()
}

fn pod_statistics(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let folder = Traces::cgroup_folder(&pod.cgroup());
    let container = pod.container("one").command(&["nacre-probe", "eat", "20"]).start()?;
    container.wait_for("ate 20 MiB")?;
    let node = container.gateway()?;
    container.shell(&format!("ping -c 1 -W 20 {node}"))?;
    eventually(SECONDS, || {
        let found = pod.statistics()?.linux.unwrap_or_default();
        let memory = found.memory.unwrap_or_default();
        let usage = value(memory.usage_bytes);
        check(usage >= 20 << 20, || format!("the pod uses {usage} bytes of memory"))?;
        check(value(found.cpu.unwrap_or_default().usage_core_nano_seconds) > 0, || "no CPU time".into())?;
        let network = found.network.unwrap_or_default().default_interface.unwrap_or_default();
        equal("interface", network.name.as_str(), "eth0")?;
        check(value(network.rx_bytes) > 0 && value(network.tx_bytes) > 0, || format!("{network:?}"))?;
        let of_group = fs::read_to_string(folder.join("memory.current")).unwrap_or_default();
        near("the pod's memory", usage, of_group.trim().parse().unwrap_or(0), 32 << 20)?;
        equal("containers", found.containers.len(), 1)?;
        let own = found.containers.into_iter().next().and_then(|it| it.memory).unwrap_or_default();
        let own = value(own.usage_bytes);
        check(own >= 20 << 20, || format!("its container uses {own} bytes of memory"))
    })?;
    pod.end()
}

/// Fails unless two counters that were read one after the other differ by no more than this.
fn near(what: &str, one: u64, other: u64, most: u64) -> Outcome {
    check(one.abs_diff(other) <= most, || format!("{what}: {one} and {other}"))
}

/// Processes in a cgroup and below it.
fn count(cgroup: &Path) -> usize {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines().count();
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    own + entries.filter(|entry| entry.path().is_dir()).map(|entry| count(&entry.path())).sum::<usize>()
}

fn pod_cgroup(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let folder = Traces::cgroup_folder(&pod.cgroup());
    let file = folder.join("memory.current");
    pod.container("one").command(&["nacre-probe", "eat", "20"]).start()?.wait_for("ate 20 MiB")?;
    check(count(&folder) >= 2, || format!("{} processes in the pod's cgroup", count(&folder)))?;
    let used = fs::read_to_string(&file).map_err(Failure::io(file.display().to_string()))?;
    let used: u64 = used.trim().parse().unwrap_or(0);
    check(used >= 20 << 20, || format!("the pod's cgroup has {used} bytes of memory"))?;
    pod.end()
}
