//! The moments of a launch as a table.

use std::fmt::Write;

use serde_json::Value;

/// What happens at each moment.
const MOMENTS: [(&str, &str); 13] = [
    ("T0", "containerd's request to create the container"),
    ("T1", "VMM started"),
    ("T2", "VMM has its files"),
    ("T3", "guest memory filled"),
    ("T4", "measurement finished"),
    ("T5", "guest runs"),
    ("T6", "firmware done"),
    ("T7", "guest kernel entered"),
    ("T8", "agent started"),
    ("T9", "first packet from the agent"),
    ("T10", "agent ready"),
    ("T11", "container's process runs"),
    ("T12", "answer to containerd's start"),
];

/// One line for each moment that this launch had: when it was, and how long after the one before.
pub fn table(launch: &str) -> Option<String> {
    let launch: Value = serde_json::from_str(launch.trim()).ok()?;
    let moments = launch.get("moments")?;
    let start = moments.get("T0")?.as_u64()?;
    let mut before = start;
    let mut table = String::new();
    for (name, what) in MOMENTS {
        let Some(moment) = moments.get(name).and_then(Value::as_u64) else { continue };
        let (since, after) = (moment.saturating_sub(start), moment.saturating_sub(before));
        writeln!(
            table,
            "  {name:>4} {:>10} {:>10}  {what}",
            milliseconds(since),
            format!("+{}", milliseconds(after))
        )
        .ok()?;
        before = moment;
    }
    Some(table)
}

/// `12.3` of 12,345,678 ns.
fn milliseconds(nanoseconds: u64) -> String {
    format!("{}.{}", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_time_and_their_difference() {
        let launch = r#"{"id":"a","moments":{"T0":1000000000,"T1":1012345678,"T12":2000000000}}"#;
        let table = table(launch).unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..3], ["T0", "0.0", "+0.0"]);
        assert_eq!(lines[1][..3], ["T1", "12.3", "+12.3"]);
        assert_eq!(lines[2][..3], ["T12", "1000.0", "+987.6"]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_is_no_launch_gives_no_table() {
        assert!(table("").is_none());
        assert!(table("{}").is_none());
    }
}
