//! Limits, as far as the guest's kernel has them.

use std::path::Path;

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::LinuxResources;

use super::{Cgroup, PARENT, ROOT};
use crate::error::chain;
use crate::id::ContainerId;

/// Leaves out what has no meaning in the guest: host devices and networks, and limits of swap and huge pages where
/// the kernel has none of them, which then can't be used at all.
pub fn fit(resources: &mut LinuxResources) {
    resources.set_block_io(None).set_network(None).set_rdma(None).set_devices(None);
    let own = Path::new(ROOT).join(PARENT);
    if let Some(mut memory) = *resources.memory()
        && !own.join("memory.swap.max").exists()
    {
        memory.set_swap(None);
        resources.set_memory(Some(memory));
    }
    let pages = resources.hugepage_limits().clone().unwrap_or_default();
    let known = |page: &str| own.join(format!("hugetlb.{page}.max")).exists();
    let pages: Vec<_> = pages.into_iter().filter(|limit| known(limit.page_size())).collect();
    resources.set_hugepage_limits(Some(pages).filter(|pages| !pages.is_empty()));
}

/// Sets limits of a container that runs. Blocks for as long as writing a few cgroup files takes.
pub fn update(id: &ContainerId, resources: &LinuxResources) -> Result<(), String> {
    let config =
        CgroupConfig { cgroup_path: Cgroup::name(id), systemd_cgroup: false, container_name: id.to_string() };
    let manager = create_cgroup_manager(config).map_err(|error| chain(&error))?;
    let options =
        ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
    manager.apply(&options).map_err(|error| chain(&error))
}
