//! The annotations that tell what a container is in its pod.

use std::collections::HashMap;

use oci_spec::runtime::Spec;

use crate::error::TaskError;
use crate::id::Id;

/// Memory limit of the pod in bytes, on its sandbox.
pub const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// CPU quota of the pod in microseconds for each period, on its sandbox.
pub const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// CPU period of the pod in microseconds, on its sandbox.
pub const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// 64 hexadecimal digits, which a confidential machine's reports show as its host data.
pub const HOST_DATA: &str = "io.nacre.host-data";
/// CPU shares of the pod, 1024 for each CPU that its containers request, on its sandbox.
pub const SANDBOX_CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";

/// The pod's namespace, name and unique id in Kubernetes, on its sandbox.
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// See [`SANDBOX_NAMESPACE`].
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// See [`SANDBOX_NAMESPACE`].
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";

const SANDBOX_ID: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];
const CONTAINER_TYPE: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];

/// What a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A container without a pod, such as `ctr` starts: its own sandbox.
    Lone,
    /// The sandbox of a pod. Its process is the VM itself.
    Sandbox,
    /// A container in the pod of another sandbox.
    Member {
        /// The sandbox's name.
        sandbox: Id,
    },
}

impl Role {
    /// The role of a container with this spec.
    ///
    /// # Errors
    /// The sandbox's name is not a valid one.
    pub fn of(spec: &Spec) -> Result<Self, TaskError> {
        let annotations = spec.annotations().as_ref();
        let find = |keys: [&str; 2]| annotations.and_then(|map| find(map, keys));
        match (find(CONTAINER_TYPE), find(SANDBOX_ID)) {
            (Some("sandbox"), _) => Ok(Self::Sandbox),
            (_, Some(sandbox)) => Ok(Self::Member { sandbox: Id::new(sandbox)? }),
            _ => Ok(Self::Lone),
        }
    }

    /// Whether it belongs to a pod of Kubernetes.
    pub fn is_in_pod(&self) -> bool {
        *self != Self::Lone
    }

    /// The name of the sandbox that a container named `own` belongs to.
    pub fn sandbox<'a>(&'a self, own: &'a Id) -> &'a Id {
        match self {
            Self::Lone | Self::Sandbox => own,
            Self::Member { sandbox } => sandbox,
        }
    }
}

fn find<'a>(annotations: &'a HashMap<String, String>, keys: [&str; 2]) -> Option<&'a str> {
    keys.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[], Role::Lone)]
    #[case(&[("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri.sandbox-id", "p")], Role::Sandbox)]
    #[case(
        &[("io.kubernetes.cri.container-type", "container"), ("io.kubernetes.cri.sandbox-id", "p")],
        Role::Member { sandbox: Id::new("p").unwrap() }
    )]
    fn a_container_is_grouped_by_its_annotations(#[case] annotations: &[(&str, &str)], #[case] role: Role) {
        let map = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let mut spec = Spec::default();
        spec.set_annotations(Some(map));
        assert_eq!(Role::of(&spec).unwrap(), role);
    }
}
