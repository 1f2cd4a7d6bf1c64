//! Tests of pods through containerd's CRI plugin, as kubelet and crictl use it, one file for each group.
//!
//! Nothing here knows which runtime it tests: what fails with runc is wrong in the test.

mod client;
mod container;
mod forward;
mod kills;
mod life;
mod logs;
mod network;
mod operators;
mod pod;
mod pods;
mod processes;
mod security;
mod size;
mod stream;
mod traces;
mod volumes;

pub use client::Cri;
pub use container::Container;
pub use pod::Pod;
pub use traces::Traces;

use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, chain};

/// Every test, in the order in which they are reported. A test's name begins with its group.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        pods::TESTS,
        size::TESTS,
        network::TESTS,
        volumes::TESTS,
        processes::TESTS,
        security::TESTS,
        life::TESTS,
        kills::TESTS,
        operators::TESTS,
    ]
    .into_iter()
    .flatten()
}

/// Runs a pod to its end, of each of the handlers that have a network of their own.
///
/// # Errors
/// One does not run.
pub fn first(context: &Context) -> Result<(), Failure> {
    let cri = Cri::connect(context)?;
    cri.image_is_there(crate::launch::BUSYBOX)?;
    for pod in [cri.pod("a"), cri.pod("b").variant("ptp")] {
        let pod = pod.run()?;
        pod.container("one").script("true").run()?;
        pod.end()?;
    }
    Ok(())
}

/// Removes a test's pods and what kubelet would remove after them. What can't be removed shows as left behind.
pub fn clean(context: &Context) {
    let traces = Traces::of(context.test());
    if !traces.ids().is_empty()
        && let Err(failure) = remove_pods(context)
    {
        println!("{}: pods can't be removed: {}", context.test(), chain(&failure));
    }
    traces.remove_cgroups();
}

fn remove_pods(context: &Context) -> Result<(), Failure> {
    let cri = Cri::connect(context)?;
    for pod in cri.pods()? {
        let pod = Pod { cri: &cri, id: pod.id, config: Default::default() };
        pod.end()?;
    }
    Ok(())
}
