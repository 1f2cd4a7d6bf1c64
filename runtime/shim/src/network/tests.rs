//! These need root, and make network namespaces of their own.

use std::io::Read;
use std::process::Command;

use super::*;

pub(super) struct Namespace(String);

impl Namespace {
    pub fn new(name: &str) -> Self {
        let name = format!("nacre-test-{name}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    pub fn ip(&self, arguments: &[&str]) -> String {
        let inside = ["-n", &self.0];
        ip(&[&inside, arguments].concat())
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// What `tc qdisc show` prints for the interface.
    fn queues(&self, device: &str) -> String {
        let arguments = ["-n", &self.0, "qdisc", "show", "dev", device];
        let output = Command::new("tc").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn with_veth(name: &str) -> Namespace {
    let namespace = Namespace::new(name);
    namespace.ip(&["link", "add", "eth0", "address", "02:00:00:00:00:07", "mtu", "1400", "type", "veth"]);
    namespace.ip(&["link", "set", "eth0", "up"]);
    namespace.ip(&["address", "add", "10.88.0.7/24", "dev", "eth0"]);
    namespace
}

#[tokio::test]
async fn an_interface_is_described_and_joined_to_a_tap() {
    let namespace = with_veth("join");
    namespace.ip(&["-6", "address", "add", "fd00::7/64", "dev", "eth0", "nodad"]);
    namespace.ip(&["route", "add", "default", "via", "10.88.0.1", "mtu", "1300"]);
    namespace.ip(&[
        "neigh",
        "add",
        "10.88.0.1",
        "lladdr",
        "02:00:00:00:00:01",
        "dev",
        "eth0",
        "nud",
        "permanent",
    ]);

    let network = connect(&namespace.path()).await.unwrap();

    let [interface] = network.interfaces.as_slice() else { panic!("{network:?}") };
    let link = &interface.link;
    assert_eq!((link.name.as_str(), link.mtu, link.mac), ("eth0", 1400, [2, 0, 0, 0, 0, 7]));
    let expected = [("10.88.0.7".parse().unwrap(), 24), ("fd00::7".parse().unwrap(), 64)];
    assert_eq!(link.addresses, expected);
    let [route] = network.routes.as_slice() else { panic!("{:?}", network.routes) };
    assert_eq!((route.destination, route.gateway), (None, Some("10.88.0.1".parse().unwrap())));
    assert_eq!(route.mtu, Some(1300));
    assert_eq!(network.neighbours.len(), 1);
    assert!(namespace.queues("eth0").contains("ingress"));
    assert!(namespace.ip(&["-o", "link", "show", "type", "tun"]).contains("mtu 1400"));
}

#[tokio::test]
async fn nothing_is_left_after_parting() {
    let namespace = with_veth("part");
    let network = connect(&namespace.path()).await.unwrap();
    let indexes = network.interfaces.iter().map(|interface| interface.link.index).collect();
    drop(network);

    disconnect(&namespace.path(), indexes).await.unwrap();

    assert_eq!(namespace.ip(&["-o", "link", "show", "type", "tun"]), "");
    assert!(!namespace.queues("eth0").contains("ingress"));
}

#[tokio::test]
async fn a_namespace_with_loopback_only_is_a_pod_without_network() {
    let namespace = Namespace::new("empty");
    let network = connect(&namespace.path()).await.unwrap();
    assert!(network.interfaces.is_empty() && network.routes.is_empty());
}

#[tokio::test]
async fn the_hosts_own_namespace_is_refused() {
    let refused = connect(Path::new(OWN_NAMESPACE)).await;
    assert!(matches!(refused, Err(NetworkError::HostNamespace(_))));
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    let error = connect(Path::new("/run/netns/none")).await.unwrap_err();
    assert!(error.to_string().contains("/run/netns/none"));
    disconnect(Path::new("/run/netns/none"), vec![1]).await.unwrap();
}

#[tokio::test]
async fn frames_that_arrive_at_the_interface_leave_through_the_tap() {
    const VNET_HEADER: usize = 10;
    const ARP: [u8; 2] = [8, 6];
    let namespace = with_veth("frames");
    let network = connect(&namespace.path()).await.unwrap();
    let mut tap = std::fs::File::from(network.interfaces.into_iter().next().unwrap().tap);
    // The other end, which is up only now: it would get a tap as well.
    namespace.ip(&["address", "add", "10.88.0.1/24", "dev", "veth0"]);
    namespace.ip(&["link", "set", "veth0", "up"]);
    let ping = ["busybox", "ping", "-c", "1", "-W", "1", "-I", "veth0", "10.88.0.9"];
    let _ = Command::new("ip").args(["netns", "exec", &namespace.0]).args(ping).output().unwrap();

    let mut frame = [0; 2048];
    let mut arrived = false;
    while let Ok(length) = tap.read(&mut frame) {
        arrived |= frame[..length].get(VNET_HEADER + 12..VNET_HEADER + 14) == Some(&ARP);
    }
    assert!(arrived);
}
