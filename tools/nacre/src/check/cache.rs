//! The folder of the layer cache.

use std::path::Path;

use nacre_configuration::sections::Image;
use nix::unistd::AccessFlags;

use super::Finding;

/// With less than this left, even small images fail.
const NEEDED_MIB: u64 = 512;

/// Whether it can be written, and has space.
pub fn finding(image: &Image) -> Finding {
    let name = "layer cache";
    let path = image.cache_path.as_path();
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if let Err(error) = nix::unistd::access(existing, AccessFlags::W_OK) {
        let found = format!("{} cannot be written: {}", existing.display(), error.desc());
        return Finding::missing(name, found, "run this as root, or set image.cache_path to another folder");
    }
    match nix::sys::statvfs::statvfs(existing) {
        Ok(disk) => {
            let free_mib = disk.blocks_available().saturating_mul(disk.fragment_size()) >> 20;
            judge(path, free_mib, image.cache_limit_mib.get().into())
        }
        Err(error) => {
            Finding::missing(name, format!("{}: {}", existing.display(), error.desc()), "look at the disk")
        }
    }
}

fn judge(path: &Path, free_mib: u64, limit_mib: u64) -> Finding {
    let name = "layer cache";
    let found = format!("{}: {free_mib} MiB free, at most {limit_mib} MiB used", path.display());
    match (free_mib >= NEEDED_MIB, free_mib >= limit_mib) {
        (true, true) => Finding::ok(name, found),
        (true, false) => Finding::ok(name, found)
            .but("the disk may be full before the cache is: lower image.cache_limit_mib, or free some space"),
        (false, _) => {
            Finding::missing(name, found, "free some space, or set image.cache_path to a larger disk")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    #[test]
    fn a_disk_nearly_full_is_not_enough_and_a_small_one_is_mentioned() {
        let judge = |free| judge(Path::new("/cache"), free, 1000);
        assert_eq!((judge(2000).state, judge(2000).to_do), (State::Ok, None));
        assert!(judge(900).state == State::Ok && judge(900).to_do.is_some());
        assert_eq!(judge(100).state, State::Missing);
    }
}
