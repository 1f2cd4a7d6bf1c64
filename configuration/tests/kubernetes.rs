//! The manifests and the chart agree with each other and with the configuration.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use nacre_configuration::Configuration;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes").join(name)).unwrap()
}

/// The value of the first line with this key.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": ")).unwrap()
}

#[test]
fn the_overhead_covers_what_the_shim_adds_and_is_the_same_everywhere() {
    let (class, values) = (read("runtimeclass.yaml"), read("chart/values.yaml"));
    let memory = value(&class, "memory");
    assert_eq!((memory, value(&class, "cpu")), (value(&values, "memory"), value(&values, "cpu")));
    let mib: u32 = memory.strip_suffix("Mi").unwrap().parse().unwrap();
    // Shim and VMM: 9 MiB, as the comment there says.
    assert!(mib >= Configuration::default().vm.memory_overhead_mib.get() + 9, "{mib}");
}

#[test]
fn the_charts_version_is_the_workspaces() {
    let chart = read("chart/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((value(&chart, "version"), value(&chart, "appVersion")), (version, version));
}
