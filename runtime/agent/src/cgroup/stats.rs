//! What a container has used.

use std::fs;
use std::path::Path;

use nacre_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    PidsStats, ThrottlingData,
};
use nacre_protocol::protobuf::MessageField;

use super::{Cgroup, number};

const NANOSECONDS: u64 = 1000;

/// Reads the counters; those of controllers that are not there stay 0.
pub fn stats(cgroup: &Cgroup) -> CgroupStats {
    let path = cgroup.path();
    CgroupStats {
        cpu_stats: MessageField::some(cpu(path)),
        memory_stats: MessageField::some(memory(path)),
        pids_stats: MessageField::some(PidsStats {
            current: value(path, "pids.current"),
            limit: limit(path, "pids.max"),
            ..Default::default()
        }),
        blkio_stats: MessageField::some(io(&text(path, "io.stat"))),
        hugetlb_stats: ["2MB", "1GB"]
            .into_iter()
            .filter(|page| path.join(format!("hugetlb.{page}.current")).exists())
            .map(|page| (page.to_owned(), huge_pages(path, page)))
            .collect(),
        ..Default::default()
    }
}

fn cpu(path: &Path) -> CpuStats {
    let stat = text(path, "cpu.stat");
    CpuStats {
        cpu_usage: MessageField::some(CpuUsage {
            total_usage: number(&stat, "usage_usec").saturating_mul(NANOSECONDS),
            usage_in_kernelmode: number(&stat, "system_usec").saturating_mul(NANOSECONDS),
            usage_in_usermode: number(&stat, "user_usec").saturating_mul(NANOSECONDS),
            ..Default::default()
        }),
        throttling_data: MessageField::some(ThrottlingData {
            periods: number(&stat, "nr_periods"),
            throttled_periods: number(&stat, "nr_throttled"),
            throttled_time: number(&stat, "throttled_usec").saturating_mul(NANOSECONDS),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory(path: &Path) -> MemoryStats {
    let stat = text(path, "memory.stat");
    let events = text(path, "memory.events");
    let counters = stat.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    });
    MemoryStats {
        cache: number(&stat, "file"),
        usage: MessageField::some(MemoryData {
            usage: value(path, "memory.current"),
            max_usage: value(path, "memory.peak"),
            failcnt: number(&events, "max"),
            limit: limit(path, "memory.max"),
            ..Default::default()
        }),
        swap_usage: MessageField::some(MemoryData {
            usage: value(path, "memory.swap.current"),
            limit: limit(path, "memory.swap.max"),
            ..Default::default()
        }),
        kernel_usage: MessageField::some(MemoryData { usage: number(&stat, "kernel"), ..Default::default() }),
        use_hierarchy: true,
        stats: counters.collect(),
        ..Default::default()
    }
}

fn huge_pages(path: &Path, page: &str) -> HugetlbStats {
    HugetlbStats {
        usage: value(path, &format!("hugetlb.{page}.current")),
        failcnt: number(&text(path, &format!("hugetlb.{page}.events")), "max"),
        ..Default::default()
    }
}

/// Lines like `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = device.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(BlkioStatsEntry { major, minor, op: op.into(), value, ..Default::default() });
        }
    }
    stats
}

fn text(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file)).unwrap_or_default()
}

fn value(path: &Path, file: &str) -> u64 {
    text(path, file).trim().parse().unwrap_or_default()
}

/// A limit; the largest number when there is none.
fn limit(path: &Path, file: &str) -> u64 {
    match text(path, file).trim() {
        "max" => u64::MAX,
        other => other.parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_devices_are_told_apart() {
        let stats = io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nnonsense\n");
        let bytes: Vec<_> =
            stats.io_service_bytes_recursive.iter().map(|entry| (entry.op.as_str(), entry.value)).collect();
        assert_eq!(bytes, [("Read", 1), ("Write", 2)]);
        assert_eq!(stats.io_serviced_recursive.len(), 2);
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("cpu.stat", "usage_usec 10\nuser_usec 7\nsystem_usec 3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("pids.current", "3\n"),
        ] {
            fs::write(folder.path().join(file), content).unwrap();
        }
        let stats = stats(&Cgroup { path: folder.path().to_owned() });
        assert_eq!(stats.cpu_stats.cpu_usage.total_usage, 10_000);
        assert_eq!(stats.memory_stats.usage.usage, 4096);
        assert_eq!(stats.memory_stats.usage.limit, u64::MAX);
        assert_eq!(stats.memory_stats.stats.get("anon"), Some(&1));
        assert_eq!(stats.pids_stats.current, 3);
    }
}
