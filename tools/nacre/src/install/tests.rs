//! A node that is a folder.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const FILES: [&str; 6] = [
    "usr/local/bin/containerd-shim-nacre-v2",
    "usr/local/bin/nacre-vmm",
    "usr/local/bin/nacre",
    "usr/share/nacre/vmlinux",
    "usr/share/nacre/initrd.img",
    "usr/share/nacre/stage0.bin",
];

fn release(content: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content} {file}")).unwrap();
    }
    folder
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// The file that a link of the node means.
fn content(node: &Path, file: &str) -> String {
    let target = fs::read_link(node.join(file)).unwrap();
    fs::read_to_string(node.join(target.strip_prefix("/").unwrap())).unwrap()
}

#[test]
fn an_upgrade_keeps_the_version_before_and_switches_all_files() {
    let node = tempfile::tempdir().unwrap();
    let versions: Vec<String> = ["one", "two", "three"]
        .iter()
        .map(|content| versions::install(release(content).path(), node.path()).unwrap())
        .collect();
    for file in FILES {
        assert_eq!(content(node.path(), file), format!("three {file}"));
    }
    let mut expected = vec![versions[1].clone(), versions[2].clone(), "current".to_owned()];
    expected.sort();
    assert_eq!(listing(&node.path().join("opt/nacre")), expected);
    assert_eq!(versions::install(release("three").path(), node.path()).unwrap(), versions[2]);

    versions::remove(node.path()).unwrap();
    versions::remove(node.path()).unwrap();
    assert!(listing(&node.path().join("opt")).is_empty());
    assert!(listing(&node.path().join("usr/local/bin")).is_empty());
}

#[test]
fn a_node_gets_keys_for_simulated_reports_once() {
    let (node, release) = (tempfile::tempdir().unwrap(), release("one"));
    let root = node.path().to_owned();
    let arguments = InstallArguments {
        node: Node { host_root: root.clone(), no_restart: true, stay: false },
        from: release.path().to_owned(),
    };
    assert!(matches!(install(&arguments), Err(InstallError::NoErofs)));
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/mkfs.erofs"), "").unwrap();
    install(&arguments).unwrap();
    let folder = root.join("var/lib/nacre/simulated");
    assert_eq!(listing(&folder), ["ark.pem", "ask.pem", "tdx", "vcek.key", "vcek.pem"]);
    let key = fs::read(folder.join("vcek.key")).unwrap();
    install(&arguments).unwrap();
    assert_eq!(fs::read(folder.join("vcek.key")).unwrap(), key, "what it signed is still checked with it");
}

#[test]
fn a_release_with_a_file_missing_changes_nothing() {
    let (node, release) = (tempfile::tempdir().unwrap(), release("one"));
    fs::remove_file(release.path().join("usr/share/nacre/initrd.img")).unwrap();
    let error = versions::install(release.path(), node.path()).unwrap_err().to_string();
    assert!(error.contains("usr/share/nacre/initrd.img"), "{error}");
    assert!(listing(node.path()).is_empty());
}

#[test]
fn a_version_whose_shim_runs_is_in_use() {
    let (node, proc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let version = versions::install(release("one").path(), node.path()).unwrap();
    let link = |pid: &str, program: &str| {
        fs::create_dir(proc.path().join(pid)).unwrap();
        let exe = format!("/opt/nacre/{version}/usr/local/bin/{program}");
        std::os::unix::fs::symlink(exe, proc.path().join(pid).join("exe")).unwrap();
    };
    link("1", "nacre");
    assert!(versions::in_use(node.path(), proc.path()).is_empty());
    link("2", "containerd-shim-nacre-v2");
    assert_eq!(versions::in_use(node.path(), proc.path()), [version]);
}

fn containerd(text: &str) -> (TempDir, PathBuf) {
    let node = tempfile::tempdir().unwrap();
    let path = node.path().join("etc/containerd/config.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    (node, path)
}

#[rstest]
#[case::old("version = 2\n", "io.containerd.grpc.v1.cri", true)]
#[case::old_with_runc(
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n",
    "io.containerd.grpc.v1.cri",
    true
)]
#[case::another_handler_of_ours(
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nacre-ptp]\nruntime_type = \"io.containerd.nacre.v2\"\n",
    "io.containerd.grpc.v1.cri",
    true
)]
#[case::no_line_end("version = 3", "io.containerd.cri.v1.runtime", false)]
#[case::new_without_imports(
    "version = 3\n[debug]\nlevel = \"info\"\n",
    "io.containerd.cri.v1.runtime",
    false
)]
fn the_handler_is_appended_once_and_removed_without_a_trace(
    #[case] text: &str,
    #[case] plugin: &str,
    #[case] runc: bool,
) {
    let (node, path) = containerd(text);
    assert!(containerd::add_handler(node.path()).unwrap());
    assert!(!containerd::add_handler(node.path()).unwrap());
    let tree: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let runtimes = &tree["plugins"][plugin]["containerd"]["runtimes"];
    assert_eq!(runtimes["nacre"]["runtime_type"].as_str(), Some("io.containerd.nacre.v2"));
    assert_eq!(runtimes.get("runc").is_some(), runc);
    assert!(containerd::remove_handler(node.path()).unwrap());
    assert!(!containerd::remove_handler(node.path()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), text.trim_end());
}

#[test]
fn a_configuration_with_drop_ins_gets_one() {
    let text = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    let (node, path) = containerd(text);
    assert!(containerd::add_handler(node.path()).unwrap());
    assert!(!containerd::add_handler(node.path()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let drop_in = node.path().join("etc/containerd/conf.d/nacre.toml");
    assert!(fs::read_to_string(&drop_in).unwrap().starts_with("version = 3\n"));
    assert!(containerd::remove_handler(node.path()).unwrap() && !drop_in.exists());
}

#[test]
fn a_node_without_a_configuration_gets_one() {
    let node = tempfile::tempdir().unwrap();
    assert!(containerd::add_handler(node.path()).unwrap());
    let text = fs::read_to_string(node.path().join("etc/containerd/config.toml")).unwrap();
    assert!(text.starts_with("version = 2\n") && text.contains("runtimes.runc"), "{text}");
}

#[rstest]
#[case::version_1("[plugins]\n", "migrate")]
#[case::unknown("version = 9\n", "neither 2 nor 3")]
#[case::no_toml("version = \n", "no TOML")]
#[case::another_runtime_of_that_name(
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nacre]\nruntime_type = \"other\"\n",
    "by hand"
)]
#[case::one_value(
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd = { runtimes = {} }\n",
    "by hand"
)]
fn what_cant_be_changed_safely_is_left_alone(#[case] text: &str, #[case] why: &str) {
    let (node, path) = containerd(text);
    let error = containerd::add_handler(node.path()).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), text);
}

#[test]
fn a_root_that_is_not_mounted_is_not_made() {
    let node = tempfile::tempdir().unwrap();
    let host_root = node.path().join("host");
    let node = || Node { host_root: host_root.clone(), no_restart: true, stay: false };
    let from = release("new");
    let installed = install(&InstallArguments { node: node(), from: from.path().to_owned() });
    assert!(installed.unwrap_err().to_string().contains("mount the node's root"));
    assert!(matches!(uninstall(&node()), Err(InstallError::NoRoot(_))));
    assert!(!host_root.exists());
}
