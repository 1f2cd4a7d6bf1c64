//! What does not change while a pod lives.

use serde::{Deserialize, Serialize};

/// A pod, as its shim described it when its VM was started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The shim's version.
    pub version: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The sandbox's, or lone container's, id.
    pub sandbox: String,
    /// The pod's name in Kubernetes, if it is from there.
    pub kubernetes: Option<KubernetesName>,
    /// `none`, `snp`, `tdx` or `simulated`.
    pub tee: String,
    /// The VM's size.
    pub size: Size,
    /// In seconds since 1970.
    pub created: u64,
    /// The VMM's process.
    pub vmm: u32,
    /// What the VM has, in the order of its devices.
    pub devices: Vec<Device>,
    /// Whether a shell in the guest is allowed.
    pub shell: bool,
    /// The configuration that the pod was started with.
    pub configuration: serde_json::Value,
}

/// A pod's name in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Its unique id.
    pub uid: String,
}

/// The size of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
}

/// A device of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `block`, `net`, `vsock`, `rng` or `console`.
    pub kind: String,
    /// What it is for.
    pub about: String,
}

impl About {
    /// What to call the pod's confidentiality where people read it. Nothing but the hardware's is confidential.
    #[must_use]
    pub fn tee_in_words(&self) -> &str {
        match self.tee.as_str() {
            "simulated" => "simulated (not confidential)",
            "" => "unknown",
            other => other,
        }
    }
}
