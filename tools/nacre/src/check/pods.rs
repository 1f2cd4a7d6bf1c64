//! What only pods need: cgroup v2, and a network.

use std::path::{Path, PathBuf};

use super::Finding;

const CGROUPS: &str = "/sys/fs/cgroup/cgroup.controllers";
const NETWORKS: &str = "/etc/cni/net.d";
/// Where containerd looks for the plugins by default, and where Debian's package has them.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The unified hierarchy, in which pods are counted.
pub fn cgroups() -> Finding {
    let name = "cgroup v2";
    match std::fs::read_to_string(CGROUPS) {
        Ok(controllers) => judge_cgroups(&controllers),
        Err(_) => Finding::missing(
            name,
            format!("{CGROUPS} is not there"),
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn judge_cgroups(controllers: &str) -> Finding {
    let name = "cgroup v2";
    let lacking: Vec<_> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|there| there == *wanted))
        .collect();
    match lacking.is_empty() {
        true => Finding::ok(name, controllers.trim()),
        false => Finding::missing(
            name,
            format!("without {}", lacking.join(", ")),
            "switch these controllers on: kernel parameter cgroup_enable=memory, or the parent group's cgroup.subtree_control",
        ),
    }
}

/// The network of pods. `ctr` and pods with no network do without.
pub fn network() -> Finding {
    judge_network(Path::new(NETWORKS), &PLUGINS.map(PathBuf::from)).not_needed()
}

fn judge_network(networks: &Path, plugins: &[PathBuf]) -> Finding {
    let name = "CNI";
    let files = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let is_network = |file: &String| [".conf", ".conflist", ".json"].iter().any(|end| file.ends_with(end));
    // containerd takes the first one.
    let network = files(networks).into_iter().filter(is_network).min();
    let plugins = plugins.iter().find(|folder| files(folder).iter().any(|file| file == "loopback"));
    match (network, plugins) {
        (Some(network), Some(plugins)) => {
            Finding::ok(name, format!("{}/{network}, plugins in {}", networks.display(), plugins.display()))
        }
        (None, _) => Finding::missing(
            name,
            format!("no network in {}", networks.display()),
            "install the cluster's network, or write a configuration there",
        ),
        (_, None) => Finding::missing(
            name,
            "no plugins found",
            "install the package containernetworking-plugins, and name its folder in containerd's cni.bin_dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    #[test]
    fn a_controller_that_is_off_is_named() {
        assert_eq!(judge_cgroups("cpuset cpu io memory pids\n").state, State::Ok);
        assert_eq!(judge_cgroups("cpuset cpu io pids\n").found, "without memory");
    }

    #[test]
    fn a_network_needs_configuration_and_plugins() {
        let folder = tempfile::tempdir().unwrap();
        let (networks, plugins) = (folder.path().join("net.d"), folder.path().join("bin"));
        let judge = || judge_network(&networks, std::slice::from_ref(&plugins));
        assert!(judge().found.contains("no network"));
        std::fs::create_dir(&networks).unwrap();
        std::fs::write(networks.join("10-bridge.conflist"), "{}").unwrap();
        std::fs::write(networks.join("README"), "").unwrap();
        assert!(judge().found.contains("no plugins"));
        std::fs::create_dir(&plugins).unwrap();
        std::fs::write(plugins.join("loopback"), "").unwrap();
        assert!(judge().state == State::Ok && judge().found.contains("10-bridge.conflist"));
    }
}
