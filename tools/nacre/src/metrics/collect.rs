//! Looking at all pods.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nacre_operator::{AgentInfo, Call, CallCount, Phase, Status};

use super::exposition::{Exposition, Kind};
use super::launches::{Launches, PHASES};
use crate::pods::{AskError, Condition, Connection, Memory, Pod, all};

/// Pods that are asked at the same time.
const AT_ONCE: usize = 32;
/// Of the guest's numbers, the ones that are passed on.
const GUEST_ITEMS: [&str; 3] = ["memtotal", "memfree", "memavailable"];
const CONDITIONS: [(Condition, &str); 7] = [
    (Condition::Starting, "starting"),
    (Condition::Running, "running"),
    (Condition::Stopped, "stopped"),
    (Condition::NotAsked, "not_asked"),
    (Condition::Silent, "silent"),
    (Condition::Orphaned, "orphaned"),
    (Condition::Leftover, "leftover"),
];

/// What is kept from one look to the next.
#[derive(Debug)]
pub struct Collector {
    root: PathBuf,
    /// Held for a whole look: one follows the other.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    launches: Launches,
    /// The calls of each pod's agent, when they were last seen.
    live: BTreeMap<(String, String), Calls>,
    /// The sum of those of pods that are gone.
    gone: Calls,
}

type Calls = BTreeMap<String, CallCount>;

/// One pod, looked at.
struct Seen {
    name: String,
    key: (String, String),
    tee: String,
    version: String,
    memory_mib: u32,
    condition: Condition,
    memory: Memory,
    guest: Vec<(&'static str, f64)>,
    calls: Option<Calls>,
}

impl Collector {
    /// For the pods below `root`, whose launches are in `timelines`.
    pub fn new(root: &Path, timelines: &Path) -> Self {
        let kept = Kept { launches: Launches::new(timelines.to_owned()), ..Default::default() };
        Self { root: root.to_owned(), kept: Mutex::new(kept) }
    }

    /// All numbers as they are now.
    pub fn text(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = all(&self.root);
        let mut seen = Vec::with_capacity(pods.len());
        for some in pods.chunks(AT_ONCE) {
            thread::scope(|scope| {
                let looks: Vec<_> = some.iter().map(|pod| scope.spawn(|| look(pod))).collect();
                seen.extend(looks.into_iter().filter_map(|look| look.join().ok()));
            });
        }
        kept.launches.update();
        kept.remember(&seen);
        let mut text = Exposition::default();
        pods_text(&mut text, &seen);
        calls_text(&mut text, &kept.calls());
        text.metric("nacre_launch_phase_seconds", Kind::Histogram, "Time of the phases of all launches.");
        for ((phase, ..), histogram) in PHASES.iter().zip(&kept.launches.phases) {
            text.histogram("nacre_launch_phase_seconds", &[("phase", phase)], histogram);
        }
        text.finish()
    }
}

impl Kept {
    fn remember(&mut self, seen: &[Seen]) {
        let before = std::mem::take(&mut self.live);
        for pod in seen {
            // A shim that does not answer now may do so later: its old counts stay.
            let calls = pod.calls.clone().or_else(|| before.get(&pod.key).cloned());
            self.live.insert(pod.key.clone(), calls.unwrap_or_default());
        }
        for (key, calls) in before {
            // Gone, or another pod of the same name.
            let is_gone = self.live.get(&key).is_none_or(|now| total(now) < total(&calls));
            if is_gone {
                add(&mut self.gone, &calls);
            }
        }
    }

    fn calls(&self) -> Calls {
        let mut sum = self.gone.clone();
        self.live.values().for_each(|calls| add(&mut sum, calls));
        sum
    }
}

fn total(calls: &Calls) -> u64 {
    calls.values().map(|call| call.count).sum()
}

fn add(sum: &mut Calls, calls: &Calls) {
    for (name, call) in calls {
        let sum = sum.entry(name.clone()).or_default();
        sum.count += call.count;
        sum.failed += call.failed;
        sum.seconds += call.seconds;
    }
}

fn look(pod: &Pod) -> Seen {
    let status: Result<Status, AskError> = pod.status();
    let about = pod.about.clone().unwrap_or_default();
    let runs = status.as_ref().is_ok_and(|status| status.phase == Phase::Running);
    let info = runs.then(|| pod.ask(Call::Agent).and_then(Connection::only::<AgentInfo>).ok()).flatten();
    Seen {
        name: pod.name(),
        key: (pod.namespace.clone(), pod.id.clone()),
        condition: pod.condition(&status),
        memory: pod.memory(),
        guest: info.map(|info| guest(&info.metrics)).unwrap_or_default(),
        calls: status.ok().map(|status| status.calls),
        tee: about.tee,
        version: about.version,
        memory_mib: about.size.memory_mib,
    }
}

/// SECURITY: the guest's text is not passed on, only numbers under names of ours.
fn guest(text: &str) -> Vec<(&'static str, f64)> {
    let find = |item: &'static str| {
        let prefix = format!("kata_guest_meminfo{{item=\"{item}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix))?;
        Some((item, value.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?))
    };
    GUEST_ITEMS.into_iter().filter_map(find).collect()
}

fn pods_text(text: &mut Exposition, seen: &[Seen]) {
    text.metric("nacre_pods", Kind::Gauge, "Pods of this node by their state.");
    for (condition, name) in CONDITIONS {
        let count = seen.iter().filter(|pod| pod.condition == condition).count();
        text.count("nacre_pods", &[("state", name)], count.try_into().unwrap_or(u64::MAX));
    }
    text.metric("nacre_pod_info", Kind::Gauge, "A pod: its technology and its shim's version. Always 1.");
    for pod in seen {
        let labels = [("tee", pod.tee.as_str()), ("version", &pod.version)];
        text.count("nacre_pod_info", &[&pod.labels()[..], &labels].concat(), 1);
    }
    type Value = fn(&Seen) -> u64;
    let metrics: [(&str, &str, Value); 3] = [
        ("nacre_pod_overhead_bytes", "Memory of shim and VMM without the guest's (PSS).", |pod| {
            pod.memory.overhead_kib * 1024
        }),
        ("nacre_pod_guest_touched_bytes", "What the guest has touched of its memory.", |pod| {
            pod.memory.guest_kib * 1024
        }),
        ("nacre_pod_guest_size_bytes", "The size of the guest's memory.", |pod| {
            u64::from(pod.memory_mib) << 20
        }),
    ];
    for (name, help, value) in metrics {
        text.metric(name, Kind::Gauge, help);
        seen.iter().for_each(|pod| text.count(name, &pod.labels(), value(pod)));
    }
    text.metric("nacre_guest_memory_bytes", Kind::Gauge, "The guest kernel's view of its memory.");
    for pod in seen {
        for (item, value) in &pod.guest {
            text.sample(
                "nacre_guest_memory_bytes",
                &[&pod.labels()[..], &[("item", *item)]].concat(),
                *value,
            );
        }
    }
}

fn calls_text(text: &mut Exposition, calls: &Calls) {
    text.metric("nacre_agent_calls_total", Kind::Counter, "Calls to the agents of all pods.");
    for (name, call) in calls {
        text.count("nacre_agent_calls_total", &[("call", name)], call.count);
    }
    text.metric("nacre_agent_call_failures_total", Kind::Counter, "Those of them that failed.");
    for (name, call) in calls {
        text.count("nacre_agent_call_failures_total", &[("call", name)], call.failed);
    }
    text.metric("nacre_agent_call_seconds_total", Kind::Counter, "The time that they took together.");
    for (name, call) in calls {
        text.sample("nacre_agent_call_seconds_total", &[("call", name)], call.seconds);
    }
}

impl Seen {
    fn labels(&self) -> [(&str, &str); 3] {
        [("pod", &self.name), ("namespace", &self.key.0), ("id", &self.key.1)]
    }
}

#[cfg(test)]
mod tests {
    use nacre_operator::Reply;

    use super::*;
    use crate::pods::tests::{pod, shim};

    fn calls(count: u64) -> Calls {
        [("stats_container".to_owned(), CallCount { count, failed: 1, seconds: 0.5 })].into()
    }

    #[test]
    fn calls_of_pods_that_are_gone_stay_counted() {
        let node = tempfile::tempdir().unwrap();
        let collector = Collector::new(node.path(), &node.path().join("launches.jsonl"));
        let folder = pod(node.path(), "web", Some(("shop", "web")), true);
        let status = Status { phase: Phase::Stopped, calls: calls(3), ..Default::default() };
        let thread = shim(&folder, Some(Reply::Ok(status).line()));
        let text = collector.text();
        thread.join().unwrap();
        let labels = "{pod=\"shop/web\",namespace=\"k8s.io\",id=\"web\"";
        let expected = [
            "nacre_pods{state=\"stopped\"} 1\n".to_owned(),
            "nacre_agent_calls_total{call=\"stats_container\"} 3\n".to_owned(),
            format!("nacre_pod_info{labels},tee=\"simulated\",version=\"\"}} 1\n"),
            format!("nacre_pod_guest_size_bytes{labels}}} 536870912\n"),
            "nacre_launch_phase_seconds_count{phase=\"total\"} 0\n".to_owned(),
        ];
        for line in expected {
            assert!(text.contains(&line), "{line} in {text}");
        }
        std::fs::remove_dir_all(folder).unwrap();
        for _ in 0..2 {
            let text = collector.text();
            assert!(text.contains("nacre_agent_calls_total{call=\"stats_container\"} 3\n"), "{text}");
            assert!(text.contains("nacre_pods{state=\"stopped\"} 0\n"), "{text}");
        }
    }

    #[test]
    fn only_numbers_come_from_the_guest() {
        let text = "kata_guest_meminfo{item=\"memtotal\"} 100\nkata_guest_meminfo{item=\"memfree\"} NaN\n\
                    evil 1\nkata_guest_meminfo{item=\"memavailable\"} 5\nnacre_pods 7\n";
        assert_eq!(guest(text), [("memtotal", 100.0), ("memavailable", 5.0)]);
    }
}
