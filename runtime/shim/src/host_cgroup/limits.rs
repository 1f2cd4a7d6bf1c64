//! The limits of a group and of all above it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ROOT, folder};

/// A limit and the group that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// In bytes.
    pub bytes: u64,
    /// The group.
    pub group: PathBuf,
}

/// What a pod's processes on the host can have, at the most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The tightest limit of memory.
    pub memory: Option<Limit>,
    /// The tightest limit of CPU time, in whole CPUs.
    pub cpus: Option<u64>,
}

impl Limits {
    /// The limits that hold for a group with this name in a specification, which need not exist yet.
    pub fn of(cgroups_path: Option<&Path>) -> Self {
        let root = Path::new(ROOT);
        cgroups_path
            .and_then(|path| folder(root, path))
            .map_or_else(Self::default, |group| read(root, &group))
    }
}

fn read(root: &Path, group: &Path) -> Limits {
    let mut limits = Limits::default();
    for folder in group.ancestors().take_while(|folder| *folder != root) {
        let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        if let Ok(bytes) = text("memory.max").trim().parse::<u64>()
            && limits.memory.as_ref().is_none_or(|tightest| bytes < tightest.bytes)
        {
            limits.memory = Some(Limit { bytes, group: folder.to_owned() });
        }
        if let Some(cpus) = cpus(&text("cpu.max")) {
            limits.cpus = Some(limits.cpus.map_or(cpus, |tightest| tightest.min(cpus)));
        }
    }
    limits
}

/// `cpu.max` is "<quota> <period>", or "max <period>" without a limit.
fn cpus(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_of_all_groups_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("kubepods/pod");
        fs::create_dir_all(&pod).unwrap();
        for (file, text) in [
            ("memory.max", "1\n"),
            ("kubepods/memory.max", "4096\n"),
            ("kubepods/cpu.max", "150000 100000\n"),
            ("kubepods/pod/memory.max", "8192\n"),
            ("kubepods/pod/cpu.max", "max 100000\n"),
        ] {
            fs::write(root.path().join(file), text).unwrap();
        }
        let limits = read(root.path(), &pod.join("sandbox"));
        let memory = Limit { bytes: 4096, group: root.path().join("kubepods") };
        assert_eq!(limits, Limits { memory: Some(memory), cpus: Some(2) });
    }

    #[test]
    fn no_limit_is_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path(), &root.path().join("pod")), Limits::default());
        assert_eq!(cpus("max 100000"), None);
        assert_eq!(cpus("1000 0"), None);
    }
}
