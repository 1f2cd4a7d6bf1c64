//! What a pod's processes on the host have used, in the protocol's form for containers.

use std::fs;
use std::path::Path;

use nacre_protocol::agent::{
    CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats, PidsStats, StatsContainerResponse,
};

const NANOSECONDS: u64 = 1000;

/// Reads a group's counters; those of controllers that are not there stay 0.
pub fn usage(group: &Path) -> StatsContainerResponse {
    let text = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    let value = |file: &str| limit(&text(file));
    let cpu = text("cpu.stat");
    let cpu = |key| number(&cpu, key).saturating_mul(NANOSECONDS);
    let cpu_usage = CpuUsage {
        total_usage: cpu("usage_usec"),
        usage_in_kernelmode: cpu("system_usec"),
        usage_in_usermode: cpu("user_usec"),
        ..Default::default()
    };
    let stat = text("memory.stat");
    let counters = stat.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    });
    let memory = MemoryStats {
        usage: Some(MemoryData {
            usage: value("memory.current"),
            max_usage: value("memory.peak"),
            limit: value("memory.max"),
            ..Default::default()
        })
        .into(),
        stats: counters.collect(),
        ..Default::default()
    };
    let pids = PidsStats { current: value("pids.current"), limit: value("pids.max"), ..Default::default() };
    let stats = CgroupStats {
        cpu_stats: Some(CpuStats { cpu_usage: Some(cpu_usage).into(), ..Default::default() }).into(),
        memory_stats: Some(memory).into(),
        pids_stats: Some(pids).into(),
        ..Default::default()
    };
    StatsContainerResponse { cgroup_stats: Some(stats).into(), ..Default::default() }
}

fn number(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// A number, or the largest one where there is no limit.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        other => other.parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_and_missing_ones_are_zero() {
        let group = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 7\ninactive_file 8\n"),
        ] {
            fs::write(group.path().join(file), text).unwrap();
        }
        let usage = usage(group.path());
        let stats = usage.cgroup_stats.unwrap();
        assert_eq!(stats.cpu_stats.cpu_usage.total_usage, 9000);
        let memory = stats.memory_stats.unwrap();
        assert_eq!((memory.usage.usage, memory.usage.limit), (4096, u64::MAX));
        assert_eq!(memory.stats.get("inactive_file"), Some(&8));
        assert_eq!(stats.pids_stats.current, 0);
    }
}
