//! Mounting with options as in fstab, at places that are made if need be.

use std::fs;
use std::path::{Component, Path};

use nix::mount::{MsFlags, mount};

use crate::error::{Doing, Failure, Reply};
use crate::teardown::Teardown;

/// Storages are mounted below this folder only.
const BASE: &str = "/run/kata-containers";

/// Checks that a mount point from the host is one for storages. SECURITY: a host may not mount over the guest's own
/// folders; names below the base are the host's to choose, and nothing but the agent makes links there.
pub fn check_point(point: &str) -> Reply<&Path> {
    let path = Path::new(point);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if plain && path.starts_with(BASE) && path != Path::new(BASE) {
        Ok(path)
    } else {
        Err(Failure::invalid(format!("the mount point {point:?} is not below {BASE}")))
    }
}

/// Options as text, apart into flags of the system call and data for the file system.
pub fn options<'a>(options: impl IntoIterator<Item = &'a str>) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options.into_iter().filter(|option| !option.is_empty()) {
        match flag(option) {
            Some((flag, true)) => flags |= flag,
            Some((flag, false)) => flags &= !flag,
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "defaults" | "auto" | "nouser" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

/// Makes the folder and mounts on it; how to undo both is added.
pub fn mount_at(
    source: &str,
    point: &Path,
    kind: &str,
    flags: MsFlags,
    data: &str,
    teardown: &mut Teardown,
) -> Reply<()> {
    if !point.exists() {
        fs::create_dir_all(point).doing(&format!("make the folder {}", point.display()))?;
        let made = point.to_owned();
        teardown.push(format!("remove {}", made.display()), move || match fs::remove_dir(&made) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
    }
    mount(Some(source), point, Some(kind), flags, Some(data))
        .doing(&format!("mount {kind} from {source} on {}", point.display()))?;
    teardown.push_unmount(point);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/run/kata-containers/web/rootfs", true)]
    #[case("/run/kata-containers/sandbox/shm", true)]
    #[case("/run/kata-containers", false)]
    #[case("/run/kata-containers/../../etc", false)]
    #[case("/etc", false)]
    #[case("run/kata-containers/x", false)]
    #[case("", false)]
    fn mount_points_stay_below_their_base(#[case] point: &str, #[case] good: bool) {
        assert_eq!(check_point(point).is_ok(), good);
    }

    #[test]
    fn options_come_apart_into_flags_and_data() {
        let (flags, data) = options(["nosuid", "size=64m", "ro", "rw", "mode=1777"]);
        assert_eq!(flags, MsFlags::MS_NOSUID);
        assert_eq!(data, "size=64m,mode=1777");
    }
}
