//! `nacre ps`: the pods of this node.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nacre_operator::About;

use crate::pods::{Condition, Memory, Place, Pod, PodError, all};
use crate::printable::word;
use crate::table;

/// Options of `nacre ps`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Prints JSON: a list of {name, namespace, id, state, tee, confidential, vcpus, memory_mib, shim_pid, vmm_pid,
    /// overhead_kib, guest_kib, age_seconds, version}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// One pod.
#[derive(Debug, serde::Serialize)]
struct Row {
    name: String,
    namespace: String,
    id: String,
    state: Condition,
    tee: Option<String>,
    confidential: bool,
    vcpus: Option<u8>,
    memory_mib: Option<u32>,
    shim_pid: Option<u32>,
    vmm_pid: Option<u32>,
    #[serde(flatten)]
    memory: Memory,
    age_seconds: Option<u64>,
    version: Option<String>,
    #[serde(skip)]
    tee_in_words: String,
}

/// The text to print.
///
/// # Errors
/// The configuration is wrong.
pub fn run(arguments: &Arguments) -> Result<String, PodError> {
    let pods = all(&arguments.place.root()?);
    // At once: shims that don't answer take their time, but not one after the other.
    let rows: Vec<Row> = thread::scope(|scope| {
        let asked: Vec<_> = pods.iter().map(|pod| scope.spawn(|| row(pod))).collect();
        asked.into_iter().filter_map(|row| row.join().ok()).collect()
    });
    Ok(match arguments.json {
        true => serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n",
        false => table(&rows),
    })
}

fn row(pod: &Pod) -> Row {
    let about = pod.about.as_ref();
    let tee = about.map(|about| about.tee.clone());
    Row {
        name: pod.name(),
        namespace: pod.namespace.clone(),
        id: pod.id.clone(),
        state: pod.condition(&pod.status()),
        confidential: tee.as_deref().is_some_and(|tee| tee == "snp" || tee == "tdx"),
        tee,
        vcpus: about.map(|about| about.size.vcpus),
        memory_mib: about.map(|about| about.size.memory_mib),
        shim_pid: pod.processes.shim(),
        vmm_pid: pod.processes.vmm(),
        memory: pod.memory(),
        age_seconds: about.map(|about| now().saturating_sub(about.created)),
        version: about.map(|about| about.version.clone()),
        tee_in_words: about.map_or("unknown", About::tee_in_words).to_owned(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn table(rows: &[Row]) -> String {
    let head = ["POD", "ID", "STATE", "TEE", "CPUS", "MEMORY", "VMM", "ON HOST", "AGE"].map(str::to_owned);
    let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let lines = rows.iter().map(|row| {
        Some([
            word(&row.name),
            word(&row.id.chars().take(12).collect::<String>()),
            row.state.words().to_owned(),
            word(&row.tee_in_words),
            shown(row.vcpus.map(|vcpus| vcpus.to_string())),
            shown(row.memory_mib.map(|mib| format!("{mib} MiB"))),
            shown(row.vmm_pid.map(|pid| pid.to_string())),
            format!("{} MiB", row.memory.total_kib().div_ceil(1024)),
            shown(row.age_seconds.map(age)),
        ])
    });
    let lines: Vec<_> = std::iter::once(Some(head)).chain(lines).collect();
    table::lay_out(&lines)
}

/// As people say it.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::pods::tests::pod;

    #[rstest]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(7200, "2h")]
    #[case(172_800, "2d")]
    fn ages_are_short(#[case] seconds: u64, #[case] expected: &str) {
        assert_eq!(age(seconds), expected);
    }

    #[test]
    fn the_table_says_what_is_not_confidential_and_what_is_left_over() {
        let node = tempfile::tempdir().unwrap();
        pod(node.path(), "0123456789abcdef", Some(("shop", "w\x1beb")), false);
        let rows: Vec<_> = all(node.path()).iter().map(row).collect();
        let text = table(&rows);
        let expected =
            ["shop/w\\u{1b}eb", "0123456789ab ", "LEFTOVER", "simulated (not confidential)", "512 MiB"];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!((&json["state"], &json["confidential"]), (&"leftover".into(), &false.into()));
    }

    #[test]
    fn no_pods_are_an_empty_table() {
        assert_eq!(table(&[]).lines().count(), 1);
    }
}
