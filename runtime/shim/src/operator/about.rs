//! A pod as it is described once, when its VM was started.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use nacre_configuration::Configuration;
use nacre_configuration::values::Tee;
use nacre_control::{Backing, Request};
use nacre_operator::{About, Device, KubernetesName, Size};
use oci_spec::runtime::Spec;

use crate::annotations::{SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID};
use crate::machine::Launched;
use crate::pod::Pod;

/// Describes a pod whose VM was started.
pub fn about(pod: &Pod, configuration: &Configuration, spec: &Spec, launched: &Launched) -> About {
    let tee = configuration.vm.tee;
    let size = launched.size();
    About {
        version: env!("CARGO_PKG_VERSION").into(),
        namespace: pod.namespace().to_string(),
        sandbox: pod.sandbox().to_string(),
        kubernetes: spec.annotations().as_ref().and_then(kubernetes_name),
        tee: tee.name().into(),
        size: Size { vcpus: size.vcpus, memory_mib: size.memory_mib },
        created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        vmm: launched.vmm_pid(),
        devices: launched.devices().to_vec(),
        // SECURITY: a shell would give the host's root what a confidential guest keeps from it.
        shell: configuration.operator.shell && matches!(tee, Tee::None | Tee::Simulated),
        configuration: serde_json::to_value(configuration).unwrap_or_default(),
    }
}

fn kubernetes_name(annotations: &HashMap<String, String>) -> Option<KubernetesName> {
    let find = |key| annotations.get(key).cloned();
    Some(KubernetesName {
        namespace: find(SANDBOX_NAMESPACE)?,
        name: find(SANDBOX_NAME)?,
        uid: find(SANDBOX_UID).unwrap_or_default(),
    })
}

/// The devices in the VMM's description of its machine.
pub fn devices(request: &Request) -> Vec<Device> {
    let Request::Start(config) = request else { return Vec::new() };
    let device = |kind: &str, about: String| Device { kind: kind.into(), about };
    let disks = config.disks.iter().zip('a'..).map(|(disk, letter)| {
        let about = match disk.backing {
            Backing::Extents(_) => "image layers, read-only",
            Backing::Volumes => "block volumes",
            Backing::File { read_only: true, .. } => "a file, read-only",
            Backing::File { read_only: false, .. } => "a file",
        };
        device("block", format!("vd{letter}: {about}"))
    });
    let nets = config.nets.iter().map(|net| {
        let mac = net.mac.map(|byte| format!("{byte:02x}")).join(":");
        device("net", format!("{mac}, MTU {}", net.mtu))
    });
    let console = match config.console.output {
        Some(_) => "the guest's messages, kept in console.log",
        None => "the guest's messages, the last 4 KiB kept by the VMM",
    };
    disks
        .chain(nets)
        .chain([
            device("vsock", format!("context id {}", config.vsock.guest_cid)),
            device("rng", "the host's random numbers".into()),
            device("console", console.into()),
        ])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_kubernetes_has_its_name() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(kubernetes_name(&map(&[(SANDBOX_NAME, "web")])), None);
        let name = kubernetes_name(&map(&[(SANDBOX_NAME, "web"), (SANDBOX_NAMESPACE, "shop")])).unwrap();
        assert_eq!((name.namespace.as_str(), name.name.as_str(), name.uid.as_str()), ("shop", "web", ""));
    }
}
