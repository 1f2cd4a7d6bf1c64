//! The processes of a pod: its shim and, with nacre, its VMM.

use crate::failure::{Failure, wrong};
use crate::listing;

/// A pod's shim and everything that it started.
pub fn below_shim(id: &str) -> Result<Vec<u32>, Failure> {
    let mut found = of(id)?;
    found.truncate(1);
    let pids = listing::pids();
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(pids.iter().copied().filter(|pid| listing::parent(*pid) == parent));
        at += 1;
    }
    Ok(found)
}

/// The shim of a container and the shim's children that are a VMM.
pub fn of(id: &str) -> Result<Vec<u32>, Failure> {
    let line = |pid: u32| listing::command_line(pid).unwrap_or_default();
    let pids = listing::pids();
    let shim =
        pids.iter().copied().find(|pid| line(*pid).contains("containerd-shim-") && line(*pid).contains(id));
    let Some(shim) = shim else { return wrong(format!("no shim has {id} in its command line")) };
    let vmms =
        pids.into_iter().filter(|pid| listing::parent(*pid) == shim && line(*pid).contains("nacre-vmm"));
    Ok(std::iter::once(shim).chain(vmms).collect())
}
