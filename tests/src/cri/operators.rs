//! For operators: what `nacre` says about pods.

use std::process::Command;

use serde_json::Value;

use super::client::Cri;
use super::pod::Pod;
use crate::cases::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::process::{self, Finished};

pub const TESTS: &[Test] = &[
    Test::new("operators/ps", "nacre ps lists a pod while it is there", ps).only_nacre(),
    Test::new("operators/inspect", "nacre inspect shows a pod by its name", inspect).only_nacre(),
    Test::new("operators/console", "the guest kernel's messages; no shell by default", console).only_nacre(),
    Test::new("operators/logs", "nacre logs shows what the shim logged", logs).only_nacre(),
    Test::new("operators/metrics", "nacre metrics counts pods and launches", metrics).only_nacre(),
    Test::new("operators/check", "nacre check says what pods lack, and what to do", can_run)
        .only_nacre()
        .alone(),
    Test::new("operators/hung", "a guest that hangs hangs no operator", hung).only_nacre(),
];

fn nacre(words: &[&str]) -> Result<Finished, Failure> {
    process::run(Command::new("nacre").args(words))
}

fn json(words: &[&str]) -> Result<Value, Failure> {
    let text = nacre(words)?.exited(0)?.stdout;
    serde_json::from_str(&text).map_err(Failure::other(format!("no JSON from nacre {words:?}")))
}

fn can_run(_: &Context) -> Outcome {
    contains("nacre check", &nacre(&["check"])?.exited(0)?.stdout, "This host can run pods")?;
    let _fault = disturbance::no_kvm()?;
    let found: Value = serde_json::from_str(&nacre(&["check", "--json"])?.failed()?.stdout)
        .map_err(Failure::other("no JSON from nacre check"))?;
    let missing =
        found.as_array().into_iter().flatten().find(|it| it["state"] == "missing" && it["needed"] == true);
    let text = missing.map(Value::to_string).unwrap_or_default();
    contains("what is missing", &text, "/dev/kvm")?;
    contains("what is missing", &text, "to_do")
}

/// The row of a pod in `nacre ps`.
fn row(pod: &Pod<'_>) -> Result<Option<Value>, Failure> {
    let rows = json(&["ps", "--json"])?;
    Ok(rows.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == pod.id.as_str())).cloned())
}

fn there(pod: &Pod<'_>) -> Result<Value, Failure> {
    row(pod)?.ok_or_else(|| Failure::Wrong(format!("nacre ps does not list {}", pod.id)))
}

fn ps(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-ps").run()?;
    pod.container("one").start()?;
    let row = there(&pod)?;
    equal("state", row["state"].as_str(), Some("running"))?;
    equal("name", row["name"].as_str(), Some("nacre-tests/ops-ps"))?;
    equal("confidential", row["confidential"].as_bool(), Some(false))?;
    check(row["vmm_pid"].as_u64().is_some(), || format!("no VMM: {row}"))?;
    for memory in ["overhead_kib", "guest_kib"] {
        check(row[memory].as_u64().is_some_and(|kib| kib > 1024), || format!("{memory}: {row}"))?;
    }
    pod.end()?;
    equal("the pod after its end", self::row(&pod)?, None)
}

fn inspect(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-inspect").run()?;
    let container = pod.container("one").start()?;
    let found = json(&["inspect", "--json", "nacre-tests/ops-inspect"])?;
    equal("id", found["id"].as_str(), Some(pod.id.as_str()))?;
    equal("problems", found["problems"].as_array().map(Vec::len), Some(0))?;
    check(found["agent"]["version"].as_str().is_some_and(|version| !version.is_empty()), || {
        format!("no agent: {found}")
    })?;
    let containers = found["status"]["containers"].as_array().cloned().unwrap_or_default();
    let ours = containers.iter().find(|one| one["id"] == container.id.as_str());
    equal("the container's state", ours.and_then(|one| one["state"].as_str()), Some("running"))?;
    check(found["timeline"]["T12"].as_u64().is_some_and(|ns| ns > 0), || format!("no timeline: {found}"))?;
    let text = nacre(&["inspect", &pod.id])?.exited(0)?.stdout;
    contains("nacre inspect", &text, "vsock")?;
    nacre(&["inspect", "nacre-tests/nobody"])?.exited(3)?;
    pod.end()
}

fn console(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-console").run()?;
    pod.container("one").start()?;
    contains("the kernel's messages", &nacre(&["console", &pod.id])?.exited(0)?.stdout, "Linux version")?;
    nacre(&["console", "--last", &pod.id])?.exited(0)?;
    let refused = nacre(&["console", "--shell", &pod.id])?.exited(5)?;
    contains("the refusal", &refused.stderr, "operator.shell")?;
    pod.end()
}

fn logs(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-logs").run()?;
    contains("nacre logs", &nacre(&["logs", &pod.id])?.exited(0)?.stdout, "VM started")?;
    pod.end()
}

fn metrics(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-metrics").run()?;
    let text = nacre(&["metrics", "--once"])?.exited(0)?.stdout;
    let labels = format!("{{pod=\"nacre-tests/ops-metrics\",namespace=\"k8s.io\",id=\"{}\"", pod.id);
    contains("overhead", &text, &format!("nacre_pod_overhead_bytes{labels}}} "))?;
    contains("the guest's memory", &text, &format!("nacre_guest_memory_bytes{labels},item=\"memtotal\"}} "))?;
    contains("calls", &text, "nacre_agent_calls_total{call=\"create_sandbox\"} ")?;
    let launches = text.lines().find_map(|line| {
        line.strip_prefix("nacre_launch_phase_seconds_count{phase=\"total\"} ")?.parse::<u64>().ok()
    });
    check(launches.is_some_and(|count| count > 0), || format!("no launch was counted:\n{text}"))?;
    pod.end()
}

fn hung(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("ops-hung").run()?;
    let vmm = there(&pod)?["vmm_pid"].to_string();
    let signal = |name: &str| process::run(Command::new("kill").args([name, &vmm]))?.exited(0);
    signal("-STOP")?;
    let looked = || {
        equal("state", there(&pod)?["state"].as_str(), Some("running"))?;
        let found = json(&["inspect", "--json", &pod.id])?;
        let problems = found["problems"].to_string();
        contains("the problem", &problems, "did not answer")?;
        nacre(&["console", "--last", &pod.id])?.exited(4)
    };
    let looked = looked();
    signal("-CONT")?;
    looked?;
    pod.end()
}
