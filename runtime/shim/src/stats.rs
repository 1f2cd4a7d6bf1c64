//! The guest's counters in containerd's form: `io.containerd.cgroups.v2.Metrics`.

use std::collections::HashMap;

use containerd_shim_protos::cgroups_v2::metrics as wire;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use nacre_protocol::agent::{BlkioStats, CgroupStats, MemoryStats, StatsContainerResponse};

/// The metrics, packed as containerd packs them.
///
/// # Errors
/// None in practice: the message has no unencodable parts.
pub fn metrics(stats: &StatsContainerResponse) -> ttrpc::Result<Any> {
    let metrics = convert(stats);
    containerd_shim::util::convert_to_any(Box::new(metrics)).map_err(ttrpc::Error::from)
}

fn convert(stats: &StatsContainerResponse) -> wire::Metrics {
    let none = CgroupStats::default();
    let cgroup = stats.cgroup_stats.as_ref().unwrap_or(&none);
    let mut metrics = wire::Metrics::new();
    if let Some(pids) = cgroup.pids_stats.as_ref() {
        metrics.pids =
            Some(wire::PidsStat { current: pids.current, limit: pids.limit, ..Default::default() }).into();
    }
    if let Some(cpu) = cgroup.cpu_stats.as_ref() {
        let mut stat = wire::CPUStat::new();
        if let Some(usage) = cpu.cpu_usage.as_ref() {
            // The protocol counts nanoseconds.
            stat.usage_usec = usage.total_usage / 1000;
            stat.user_usec = usage.usage_in_usermode / 1000;
            stat.system_usec = usage.usage_in_kernelmode / 1000;
        }
        if let Some(throttling) = cpu.throttling_data.as_ref() {
            stat.nr_periods = throttling.periods;
            stat.nr_throttled = throttling.throttled_periods;
            stat.throttled_usec = throttling.throttled_time / 1000;
        }
        metrics.cpu = Some(stat).into();
    }
    if let Some(memory) = cgroup.memory_stats.as_ref() {
        metrics.memory = Some(memory_stat(memory)).into();
        let oom = |key: &str| memory.stats.get(key).copied().unwrap_or(0);
        metrics.memory_events =
            Some(wire::MemoryEvents { oom: oom("oom"), oom_kill: oom("oom_kill"), ..Default::default() })
                .into();
    }
    if let Some(io) = cgroup.blkio_stats.as_ref() {
        metrics.io = Some(wire::IOStat { usage: io_entries(io), ..Default::default() }).into();
    }
    metrics.hugetlb = cgroup
        .hugetlb_stats
        .iter()
        .map(|(size, stats)| wire::HugeTlbStat {
            current: stats.usage,
            max: stats.max_usage,
            pagesize: size.clone(),
            ..Default::default()
        })
        .collect();
    metrics.network = stats
        .network_stats
        .iter()
        .map(|network| wire::NetworkStat {
            name: network.name.clone(),
            rx_bytes: network.rx_bytes,
            rx_packets: network.rx_packets,
            rx_errors: network.rx_errors,
            rx_dropped: network.rx_dropped,
            tx_bytes: network.tx_bytes,
            tx_packets: network.tx_packets,
            tx_errors: network.tx_errors,
            tx_dropped: network.tx_dropped,
            ..Default::default()
        })
        .collect();
    metrics
}

/// The names of `stats` are those of the kernel's `memory.stat`.
fn memory_stat(memory: &MemoryStats) -> wire::MemoryStat {
    let stat = |key: &str| memory.stats.get(key).copied().unwrap_or(0);
    let usage = memory.usage.as_ref();
    let swap = memory.swap_usage.as_ref();
    wire::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_activate: stat("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: usage.map_or(0, |usage| usage.usage),
        usage_limit: usage.map_or(0, |usage| usage.limit),
        max_usage: usage.map_or(0, |usage| usage.max_usage),
        swap_usage: swap.map_or(0, |swap| swap.usage),
        swap_limit: swap.map_or(0, |swap| swap.limit),
        swap_max_usage: swap.map_or(0, |swap| swap.max_usage),
        ..Default::default()
    }
}

/// The protocol has one entry for each device and operation, containerd one for each device.
fn io_entries(io: &BlkioStats) -> Vec<wire::IOEntry> {
    let mut devices: HashMap<(u64, u64), wire::IOEntry> = HashMap::new();
    let bytes = io.io_service_bytes_recursive.iter().map(|entry| (entry, true));
    let operations = io.io_serviced_recursive.iter().map(|entry| (entry, false));
    for (entry, counts_bytes) in bytes.chain(operations) {
        let device = devices.entry((entry.major, entry.minor)).or_insert_with(|| wire::IOEntry {
            major: entry.major,
            minor: entry.minor,
            ..Default::default()
        });
        let counter = match (entry.op.to_ascii_lowercase().as_str(), counts_bytes) {
            ("read", true) => &mut device.rbytes,
            ("write", true) => &mut device.wbytes,
            ("read", false) => &mut device.rios,
            ("write", false) => &mut device.wios,
            _ => continue,
        };
        *counter = counter.saturating_add(entry.value);
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use nacre_protocol::agent::{BlkioStatsEntry, CpuStats, CpuUsage, MemoryData};

    use super::*;

    #[test]
    fn counters_keep_their_meaning_and_get_containerds_units() {
        let mut cgroup = CgroupStats::new();
        let usage = CpuUsage { total_usage: 5_000_000, ..Default::default() };
        cgroup.cpu_stats = Some(CpuStats { cpu_usage: Some(usage).into(), ..Default::default() }).into();
        let usage = MemoryData { usage: 7, limit: 9, ..Default::default() };
        let stats = HashMap::from([("anon".to_owned(), 3), ("inactive_file".to_owned(), 4)]);
        cgroup.memory_stats =
            Some(MemoryStats { usage: Some(usage).into(), stats, ..Default::default() }).into();
        let entry =
            |op: &str, value| BlkioStatsEntry { major: 254, op: op.into(), value, ..Default::default() };
        let io_service_bytes_recursive = vec![entry("Read", 1), entry("Write", 2)];
        cgroup.blkio_stats = Some(BlkioStats { io_service_bytes_recursive, ..Default::default() }).into();

        let response = StatsContainerResponse { cgroup_stats: Some(cgroup).into(), ..Default::default() };
        let metrics = convert(&response);

        assert_eq!(metrics.cpu.usage_usec, 5000);
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (7, 9));
        assert_eq!((metrics.memory.anon, metrics.memory.inactive_file), (3, 4));
        assert_eq!((metrics.io.usage[0].rbytes, metrics.io.usage[0].wbytes), (1, 2));
    }

    #[test]
    fn containerd_knows_the_message_by_its_name() {
        let any = metrics(&StatsContainerResponse::default()).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    }
}
