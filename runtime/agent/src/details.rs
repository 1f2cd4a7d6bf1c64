//! What the guest and its agent are.

use std::fmt::Write;
use std::fs;

use nacre_protocol::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};
use nacre_protocol::protobuf::MessageField;

const BLOCK_SIZE: &str = "/sys/devices/system/memory/block_size_bytes";
const PROBE: &str = "/sys/devices/system/memory/probe";

/// Answers GetGuestDetails.
pub fn guest(request: &GuestDetailsRequest, storage_handlers: Vec<String>) -> GuestDetailsResponse {
    let block_size = || {
        let text = fs::read_to_string(BLOCK_SIZE).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    GuestDetailsResponse {
        mem_block_size_bytes: if request.mem_block_size { block_size().unwrap_or_default() } else { 0 },
        support_mem_hotplug_probe: request.mem_hotplug_probe && fs::exists(PROBE).unwrap_or_default(),
        agent_details: MessageField::some(AgentDetails {
            version: env!("CARGO_PKG_VERSION").into(),
            init_daemon: std::process::id() == 1,
            storage_handlers,
            supports_seccomp: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Memory and load of the guest in Prometheus' text format.
pub fn metrics() -> String {
    let mut text = String::new();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (item, value) in memory.lines().filter_map(|line| line.split_once(':')) {
        let Some(kib) = value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()) else {
            continue;
        };
        let item = item.to_ascii_lowercase().replace(['(', ')'], "_");
        let bytes = kib.saturating_mul(1024);
        let _ = writeln!(text, "kata_guest_meminfo{{item=\"{item}\"}} {bytes}");
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    for (item, value) in ["load1", "load5", "load15"].into_iter().zip(load.split_whitespace()) {
        let _ = writeln!(text, "kata_guest_load{{item=\"{item}\"}} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn metrics_name_the_memory() {
        assert!(super::metrics().contains("kata_guest_meminfo{item=\"memtotal\"} "));
    }
}
