//! Memory and CPU.

use serde_json::{Value, json};

use super::Test;
use crate::containerd;
use crate::context::Context;
use crate::events::Events;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::wait::SECONDS;

pub const TESTS: &[Test] = &[
    Test::new("memory-limit", "too much memory: exit status 137, an OOM event, and others go on", memory),
    Test::new("memory-of-exec", "an exec that takes too much memory is killed", memory_of_exec),
    Test::new("update", "resources of a running container change", update),
    Test::new("cpu-limit", "the CPU quota is the specification's", cpu),
];

/// 96 MiB.
const LIMIT: &str = "100663296";

/// The container's own group, as cgroup v2 shows it inside.
const CGROUP: &str = "cat /sys/fs/cgroup/$(sed -n 's/^0:://p' /proc/self/cgroup)/";

fn memory(context: &Context) -> Outcome {
    let neighbour = context.container("neighbour").command(&["sleep", "1000"]).detach()?;
    let events = Events::subscribe(context)?;
    let container = context.container("a").flags(&["--memory-limit", LIMIT]);
    container.command(&["nacre-probe", "eat", "300"]).run()?.exited(137)?;
    let id = context.id("a");
    events.wait_for(&id, "/tasks/exit")?;
    let ooms = events.of(&id).into_iter().filter(|event| event.topic == "/tasks/oom").count();
    equal("OOM events", ooms, 1)?;
    equal("events of the neighbour", events.of_task(&neighbour.id), Vec::<String>::new())?;
    neighbour.exec("1", &["echo", "still here"])?.wrote("still here\n")?;
    neighbour.end()
}

fn memory_of_exec(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--memory-limit", LIMIT]);
    let task = container.command(&["sleep", "1000"]).detach()?;
    task.exec("1", &["nacre-probe", "eat", "300"])?.exited(137)?;
    task.exec("2", &["echo", "still here"])?.wrote("still here\n")?;
    task.end()
}

/// `ctr` mounts no cgroups into a container.
fn with_cgroups(spec: &mut Value) {
    let options = json!(["ro", "nosuid", "noexec", "nodev"]);
    let mount =
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

fn update(context: &Context) -> Outcome {
    let container =
        context.container("a").flags(&["--memory-limit", "134217728"]).specification(with_cgroups);
    let task = container.command(&["sleep", "1000"]).detach()?;
    let limit = |name: &str| -> Result<String, Failure> {
        let shown = task.exec(name, &["sh", "-c", &format!("{CGROUP}memory.max")])?;
        if shown.stderr.contains("No such file") {
            return context.cannot_run("the node has no cgroup v2");
        }
        Ok(shown.exited(0)?.stdout)
    };
    equal("memory.max", limit("1")?, "134217728\n".to_owned())?;
    let resources = json!({ "memory": { "limit": 100_663_296 }, "pids": { "limit": 77 } });
    containerd::update_resources(&context.options, &task.id, &resources)?;
    equal("memory.max", limit("2")?, "100663296\n".to_owned())?;
    task.exec("3", &["sh", "-c", &format!("{CGROUP}pids.max")])?.wrote("77\n")?;
    match containerd::update_resources(&context.options, &context.id("other"), &resources) {
        Err(Failure::Wrong(text)) => contains("the error", &text, "not found")?,
        other => return wrong(format!("an update of nothing: {other:?}")),
    }
    task.end()
}

fn cpu(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--cpu-quota", "40000", "--cpu-period", "80000"]);
    let shown = container.specification(with_cgroups).script(&format!("{CGROUP}cpu.max")).run()?;
    if shown.stderr.contains("No such file") {
        return context.cannot_run("the node has no cgroup v2");
    }
    check(shown.took < SECONDS * 2, || format!("it took {} s", shown.took.as_secs()))?;
    shown.wrote("40000 80000\n").map(|_| ())
}
