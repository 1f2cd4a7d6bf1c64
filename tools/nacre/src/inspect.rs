//! `nacre inspect`: all that is known of a pod.

use std::collections::BTreeMap;
use std::fmt::Write;

use nacre_operator::{About, AgentInfo, Call, Status};

use crate::chain;
use crate::pods::{Condition, Memory, Pod, PodError, Wanted};
use crate::printable::word;

/// What the moments of a launch are.
const MOMENTS: [(&str, &str); 13] = [
    ("T0", "containerd's request"),
    ("T1", "VMM started"),
    ("T2", "VMM has its files"),
    ("T3", "guest memory filled"),
    ("T4", "measurement finished"),
    ("T5", "guest runs"),
    ("T6", "stage0 done"),
    ("T7", "kernel entered"),
    ("T8", "agent started"),
    ("T9", "first packet from the agent"),
    ("T10", "agent ready"),
    ("T11", "first container's process runs"),
    ("T12", "answer to containerd's start"),
];

/// Options of `nacre inspect`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Prints JSON: {name, namespace, id, state, about, status, agent, timeline, memory, problems}
    #[arg(long)]
    json: bool,
}

/// A pod, from everybody who knows something.
#[derive(Debug, serde::Serialize)]
struct Found<'a> {
    name: String,
    namespace: &'a str,
    id: &'a str,
    state: Condition,
    about: Option<&'a About>,
    status: Option<Status>,
    agent: Option<AgentInfo>,
    /// In nanoseconds since T0.
    timeline: BTreeMap<String, u64>,
    memory: Memory,
    /// Why parts are missing.
    problems: Vec<String>,
}

/// The text to print. What is missing is told in it: a pod that is broken is what this command is for.
///
/// # Errors
/// There is no such pod.
pub fn run(arguments: &Arguments) -> Result<String, PodError> {
    let pod = arguments.wanted.find()?;
    let found = look(&pod);
    Ok(match arguments.json {
        true => serde_json::to_string_pretty(&found).unwrap_or_default() + "\n",
        false => text(&found),
    })
}

fn look(pod: &Pod) -> Found<'_> {
    let status = pod.status();
    let agent = pod.ask(Call::Agent).and_then(crate::pods::Connection::only::<AgentInfo>);
    let state = pod.condition(&status);
    let mut problems = Vec::new();
    if pod.about.is_none() {
        problems
            .push("the shim wrote no description of the pod: it is of an older version, or starts".into());
    }
    if let Err(error) = &status {
        problems.push(chain(error));
    } else if let Err(error) = &agent {
        problems.push(format!("the guest's agent: {}", chain(error)));
    }
    let timeline = status.as_ref().map(|status| status.moments.clone()).unwrap_or_default();
    let timeline = if timeline.is_empty() { written(pod) } else { timeline };
    Found {
        name: pod.name(),
        namespace: &pod.namespace,
        id: &pod.id,
        state,
        about: pod.about.as_ref(),
        status: status.ok(),
        agent: agent.ok(),
        timeline: since_start(&timeline),
        memory: pod.memory(),
        problems,
    }
}

/// The timeline of a launch that is over.
fn written(pod: &Pod) -> BTreeMap<String, u64> {
    #[derive(serde::Deserialize)]
    struct Launch {
        moments: BTreeMap<String, u64>,
    }
    let json = std::fs::read(pod.folder.join("timeline.json")).unwrap_or_default();
    serde_json::from_slice::<Launch>(&json).map(|launch| launch.moments).unwrap_or_default()
}

fn since_start(moments: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let Some(start) = moments.get("T0") else { return BTreeMap::new() };
    moments.iter().map(|(name, ns)| (name.clone(), ns.saturating_sub(*start))).collect()
}

/// Writing to a String cannot fail.
fn text(found: &Found<'_>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:<14}{}", word(value));
    };
    line("pod", &found.name);
    line("namespace", found.namespace);
    line("id", found.id);
    line("state", found.state.words());
    if let Some(about) = found.about {
        line("TEE", about.tee_in_words());
        line("size", &format!("{} CPUs, {} MiB", about.size.vcpus, about.size.memory_mib));
        line("shim version", &about.version);
        line("VMM process", &about.vmm.to_string());
    }
    if let Some(agent) = &found.agent {
        line("agent version", &agent.version);
    }
    line("host memory", &format!("{} KiB beside the guest's", found.memory.overhead_kib));
    line("guest memory", &format!("{} KiB touched", found.memory.guest_kib));
    if let Some(end) = found.status.as_ref().and_then(|status| status.end.as_ref()) {
        line("VM ended", end);
    }
    for problem in &found.problems {
        line("problem", problem);
    }
    if let Some(about) = found.about {
        devices(&mut text, about);
    }
    if let Some(status) = &found.status {
        containers(&mut text, status);
    }
    timeline(&mut text, &found.timeline);
    if let Some(status) = &found.status {
        calls(&mut text, status);
        errors(&mut text, status);
    }
    if let Some(about) = found.about {
        configuration(&mut text, about);
    }
    text
}

fn devices(text: &mut String, about: &About) {
    let _ = writeln!(text, "\ndevices");
    for device in &about.devices {
        let _ = writeln!(text, "  {:<9} {}", word(&device.kind), word(&device.about));
    }
}

fn containers(text: &mut String, status: &Status) {
    let _ = writeln!(text, "\ncontainers");
    for container in &status.containers {
        let exit = container.exit_status.map(|exit| format!(", exit status {exit}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {}  {} ({}{exit})",
            word(&container.id),
            word(&container.state),
            word(&container.role)
        );
    }
}

fn timeline(text: &mut String, moments: &BTreeMap<String, u64>) {
    let _ = writeln!(text, "\nlaunch, in milliseconds");
    if moments.is_empty() {
        let _ = writeln!(text, "  not recorded");
    }
    for (name, about) in MOMENTS {
        if let Some(ns) = moments.get(name) {
            let _ = writeln!(text, "  {name:>3} {:>8}.{}  {about}", ns / 1_000_000, ns / 100_000 % 10);
        }
    }
}

fn calls(text: &mut String, status: &Status) {
    let _ = writeln!(text, "\ncalls to the agent");
    for (name, call) in &status.calls {
        let _ = writeln!(
            text,
            "  {:<24} {:>6}, {} failed, {:.1} ms together",
            word(name),
            call.count,
            call.failed,
            call.seconds * 1000.0
        );
    }
}

fn errors(text: &mut String, status: &Status) {
    let _ = writeln!(text, "\nlast warnings and errors");
    if status.errors.is_empty() {
        let _ = writeln!(text, "  none");
    }
    for message in &status.errors {
        let cause = message.keys.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
        let cause = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        let line = format!("{} {} {}{cause}", message.time, message.level, message.text);
        let _ = writeln!(text, "  {}", word(&line));
    }
}

fn configuration(text: &mut String, about: &About) {
    let _ = writeln!(text, "\nconfiguration of this pod");
    for (section, keys) in about.configuration.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            let _ = writeln!(text, "  {} = {}", word(&format!("{section}.{key}")), word(&value.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use nacre_operator::{Message, Phase, Reply};

    use super::*;
    use crate::pods::one;
    use crate::pods::tests::{pod, shim};

    #[test]
    fn a_pod_without_a_process_is_shown_with_what_is_left() {
        let node = tempfile::tempdir().unwrap();
        let folder = pod(node.path(), "web", None, false);
        let launch = r#"{"id":"web","moments":{"T0":1000000,"T12":3500000}}"#;
        std::fs::write(folder.join("timeline.json"), launch).unwrap();
        let pod = one(node.path(), "web").unwrap();
        let found = look(&pod);
        assert_eq!((found.state, found.timeline["T12"]), (Condition::Leftover, 2_500_000));
        let text = text(&found);
        let expected =
            ["LEFTOVER", "simulated (not confidential)", "2 CPUs, 512 MiB", "T12        2.5  answer"];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }

    #[test]
    fn what_the_guest_says_cant_reach_the_terminal() {
        let node = tempfile::tempdir().unwrap();
        let folder = pod(node.path(), "web", None, true);
        let message = Message { text: "bad\x1b[2J".into(), level: "WARN".into(), ..Default::default() };
        let status = Status {
            phase: Phase::Stopped,
            end: Some("\x1b]0;x\x07".into()),
            errors: vec![message],
            ..Default::default()
        };
        let thread = shim(&folder, Some(Reply::Ok(status).line()));
        let pod = one(node.path(), "web").unwrap();
        let found = look(&pod);
        let text = text(&found);
        assert!(found.state == Condition::Stopped && text.contains("bad\\u{1b}[2J"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        thread.join().unwrap();
    }
}
