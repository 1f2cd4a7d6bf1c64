use std::fs;

use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

#[path = "../../../../hypervisor/launch/tests/stand_in/kernel.rs"]
mod kernel;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

/// A folder with a configuration and what it names.
pub fn configured(more: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("stage0"), [0x90; 0x2000]).unwrap();
    fs::write(at("kernel"), kernel::kernel_file()).unwrap();
    fs::write(at("initrd"), "initrd").unwrap();
    let path = |name: &str| at(name).display().to_string();
    let guest = format!(
        "[guest]\nstage0 = {:?}\nkernel = {:?}\ninitrd = {:?}\n",
        path("stage0"),
        path("kernel"),
        path("initrd")
    );
    fs::write(at("nacre.toml"), format!("{guest}{more}")).unwrap();
    folder
}

fn measure(folder: &TempDir, line: &str) -> Result<String, String> {
    let config = folder.path().join("nacre.toml");
    let words = ["measure", "--config"].map(str::to_owned).into_iter();
    let words = words.chain([config.display().to_string()]).chain(line.split_whitespace().map(str::to_owned));
    let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
    run(&program.arguments).map_err(|error| error.to_string())
}

#[test]
fn a_row_for_each_number_of_vcpus_has_exactly_the_promised_keys() {
    let folder = configured("");
    let text = measure(&folder, "--tee snp --vcpus 1,2,4 --json").unwrap();
    let rows: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&text).unwrap();
    let vcpus: Vec<&Value> = rows.iter().map(|row| &row["vcpus"]).collect();
    assert_eq!(vcpus, [&json!(1), &json!(2), &json!(4)]);
    for row in &rows {
        let mut keys: Vec<&str> = row.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["measured_bytes", "measurement", "pages", "tee", "vcpus"]);
        assert_eq!(
            (&row["tee"], &row["measured_bytes"], &row["pages"]),
            (&json!("snp"), &json!(16384), &json!(6))
        );
        assert_eq!(row["measurement"].as_str().unwrap().len(), 96);
    }
    let table = measure(&folder, "--tee snp --vcpus 1,2,4").unwrap();
    assert_eq!(table.lines().count(), 4);
    assert!(rows.iter().all(|row| table.contains(row["measurement"].as_str().unwrap())), "{table}");
}

#[test]
fn the_configured_technology_and_list_are_the_default() {
    let folder = configured("[vm]\ntee = \"simulated\"\n[confidential]\nvcpus = [1, 3]\n");
    let table = measure(&folder, "").unwrap();
    let starts: Vec<Vec<&str>> =
        table.lines().skip(1).map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(starts, [["simulated", "1", "256"], ["simulated", "3", "256"]]);
    let other = configured("[vm]\ntee = \"simulated\"\n[confidential]\nsimulated_platform = \"tdx\"\n");
    let text = measure(&other, "").unwrap();
    assert!(text.lines().nth(1).unwrap().starts_with("simulated-tdx ") && text.contains("RTMR2 "), "{text}");
    assert_eq!(text, measure(&other, "--tee simulated-tdx").unwrap());
    let snp = measure(&folder, "--tee snp").unwrap();
    assert_ne!(snp, table);
}

#[test]
fn an_explanation_names_every_part_and_the_measurement() {
    let folder = configured("");
    let text = measure(&folder, "--tee snp --vcpus 2 --explain").unwrap();
    for line in ["hashes", "parameters", "secrets", "cpuid", "stage0", "cpu0", "cpu1"] {
        assert_eq!(
            text.lines().filter(|row| row.contains(&format!(" {line} "))).count(),
            1,
            "{line}: {text}"
        );
    }
    assert!(
        text.contains("0xffffe000") && text.contains("vmsa") && text.contains("the address only"),
        "{text}"
    );
    let table = measure(&folder, "--tee snp --vcpus 2").unwrap();
    assert!(table.contains(text.lines().last().unwrap().strip_prefix("measurement ").unwrap()));
}

#[test]
fn a_dump_of_several_sizes_has_a_folder_for_each() {
    let folder = configured("");
    let dump = folder.path().join("dump");
    measure(&folder, &format!("--tee snp --vcpus 1,2 --dump {}", dump.display())).unwrap();
    assert!(dump.join("vcpus-1/manifest.json").exists() && dump.join("vcpus-2/manifest.json").exists());
    let one = folder.path().join("one");
    measure(&folder, &format!("--tee snp --vcpus 2 --dump {}", one.display())).unwrap();
    let read = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(read(one.join("manifest.json")), read(dump.join("vcpus-2/manifest.json")));
    let memory = folder.path().join("memory");
    let line = format!("--tee snp --vcpus 1 --memory-mib 256,512 --dump {}", memory.display());
    measure(&folder, &line).unwrap();
    assert!(memory.join("vcpus-1-memory-512/manifest.json").exists());
}

#[test]
fn what_no_pod_has_is_refused_with_what_pods_have() {
    let folder = configured("");
    let error = measure(&folder, "--tee snp --vcpus 3").unwrap_err();
    assert!(error.contains("vcpus = 3") && error.contains("[1, 2, 4, 8, 16, 32]"), "{error}");
    let error = measure(&folder, "--tee snp --memory-mib 100").unwrap_err();
    assert!(error.contains("memory_mib = 100"), "{error}");
    let error = measure(&folder, "").unwrap_err();
    assert!(error.contains("--tee"), "{error}");
    assert!(measure(&folder, "--tee snp --explain --json").is_err());
    fs::remove_file(folder.path().join("stage0")).unwrap();
    let error = measure(&folder, "--tee snp").unwrap_err();
    assert!(error.starts_with("can't read stage0"), "{error}");
}

#[test]
fn a_tdx_guest_has_pages_only_and_registers() {
    let folder = configured("");
    let dump = folder.path().join("dump");
    let text = measure(&folder, &format!("--tee tdx --vcpus 4 --explain --dump {}", dump.display())).unwrap();
    assert!(text.contains("RTMR1 ") && text.contains("RTMR2 ") && text.contains(" added "), "{text}");
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(dump.join("manifest.json")).unwrap()).unwrap();
    let kinds: Vec<_> =
        manifest.as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"measured") && kinds.contains(&"added"), "{kinds:?}");
    assert!(kinds.iter().all(|kind| ["measured", "added"].contains(kind)), "{kinds:?}");
    let rows: Value = serde_json::from_str(&measure(&folder, "--tee tdx --vcpus 4 --json").unwrap()).unwrap();
    assert_eq!(rows[0]["tee"], "tdx");
    for value in ["measurement", "rtmr1", "rtmr2"] {
        assert!(text.contains(rows[0][value].as_str().unwrap()), "{value}: {text}");
    }
}
