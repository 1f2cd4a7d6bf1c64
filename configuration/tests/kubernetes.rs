//! The manifests and the chart agree with each other and with the configuration. Nothing here renders the chart:
//! there is no Helm among Debian's packages.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
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

/// The paths of all keys in a file of nested maps.
fn keys(text: &str) -> BTreeSet<String> {
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((key, _)) = line.trim().split_once(':') else { continue };
        let depth = line.len() - line.trim_start().len();
        above.retain(|(other, _)| *other < depth);
        above.push((depth, key.to_owned()));
        let path: Vec<_> = above.iter().map(|(_, key)| key.as_str()).collect();
        keys.insert(path.join("."));
    }
    keys
}

#[test]
fn the_templates_use_values_that_are_there_and_close_what_they_open() {
    let known = keys(&read("chart/values.yaml"));
    for name in ["daemonset.yaml", "runtimeclass.yaml", "NOTES.txt"] {
        let text = read(&format!("chart/templates/{name}"));
        for used in text.split(".Values.").skip(1) {
            let end = used.find(|character: char| !character.is_alphanumeric() && character != '.');
            let used = &used[..end.unwrap_or(used.len())];
            assert!(known.contains(used), "{name} uses {used}, which values.yaml has not");
        }
        let count = |word: &str| text.matches(word).count();
        let opened = ["{{- if", "{{- with", "{{- range"].map(count).iter().sum::<usize>();
        assert_eq!((opened, count("{{")), (count("{{- end"), count("}}")), "{name}");
    }
}
