//! Network: what CNI gave is what containers have.

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, contains, equal};
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("network/address", "a container has the address that CRI reports", address),
    Test::new("network/pod-to-pod", "pods reach each other, the node reaches them, and they the node", reach),
    Test::new("network/point-to-point", "CNI's ptp plugin works as bridge does", point_to_point),
    Test::new("network/dns", "resolv.conf is as CRI says", dns),
    Test::new("network/host-port", "a port of the node leads to the pod", host_port),
    Test::new("network/port-forward", "a forwarded port reaches a service on the pod's localhost", forward),
    Test::new("network/forward-to-nothing", "forwarding to a closed port says so", forward_to_nothing),
];

/// A server that greets each client.
const SERVER: &str = "while :; do echo hello from $HOSTNAME | nc -l -p 8080 ; done";

fn address(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let address = pod.address()?;
    let shown = pod.container("one").script("ip address show eth0; ip route").run()?;
    contains("the addresses", &shown, &format!("inet {address}/"))?;
    contains("the routes", &shown, "default via")?;
    let more = pod.status()?.status.unwrap_or_default().network.unwrap_or_default().additional_ips;
    for other in more {
        contains("the addresses", &shown, &format!("inet6 {}/", other.ip))?;
    }
    pod.end()
}

/// What a server on this address says.
fn greeting(address: &str, port: u16) -> Result<String, Failure> {
    let mut client = std::process::Command::new("busybox");
    client.args(["nc", "-w", "10", address, &port.to_string()]);
    let said = process::run(&mut client)?;
    Ok(said.exited(0)?.stdout)
}

fn reach(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let server = cri.pod("server").run()?;
    server.container("one").script(SERVER).start()?;
    let address = server.address()?;
    eventually(SECONDS, || equal("to the node", greeting(&address, 8080)?.as_str(), "hello from server\n"))?;
    let client = cri.pod("client").run()?;
    let container = client.container("one").start()?;
    let ask = format!("nc -w 10 {address} 8080");
    eventually(SECONDS, || equal("to a pod", container.shell(&ask)?.as_str(), "hello from server\n"))?;
    let node = container.shell("ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'")?;
    container.shell(&format!("ping -c 1 -W 20 {}", node.trim()))?;
    // The node's other address is past the gateway.
    container.shell("ping -c 1 -W 20 10.0.2.15")?;
    client.end()?;
    server.end()
}

fn point_to_point(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let server = cri.pod("server").variant("ptp").run()?;
    let container = server.container("one").script(SERVER).start()?;
    let address = server.address()?;
    eventually(SECONDS, || equal("to the node", greeting(&address, 8080)?.as_str(), "hello from server\n"))?;
    container.shell("ping -c 1 -W 20 10.0.2.15")?;
    server.end()
}

fn dns(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").with(|config| {
        let dns = config.dns_config.get_or_insert_default();
        dns.servers = vec!["10.96.0.10".into()];
        dns.searches = vec!["sea.example".into(), "example".into()];
        dns.options = vec!["ndots:5".into()];
    });
    let pod = pod.run()?;
    let shown = pod.container("one").script("cat /etc/resolv.conf").run()?;
    for part in ["search sea.example example\n", "nameserver 10.96.0.10\n", "options ndots:5\n"] {
        contains("resolv.conf", &shown, part)?;
    }
    pod.end()
}

fn host_port(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").host_port(28080, 8080).run()?;
    pod.container("one").script(SERVER).start()?;
    eventually(SECONDS, || {
        equal("through the port", greeting("10.0.2.15", 28080)?.as_str(), "hello from a\n")
    })?;
    pod.end()
}

fn forward(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "echo ready; while :; do nc -l -s 127.0.0.1 -p 9090 -e cat; done";
    pod.container("one").script(script).start()?.wait_for("ready")?;
    eventually(SECONDS, || {
        let mut port = pod.forward(9090)?;
        port.write(b"pearl")?;
        equal("what comes back", port.read(5)?.as_slice(), b"pearl")
    })?;
    pod.end()
}

fn forward_to_nothing(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    contains("the error", &pod.forward(9091)?.error()?, "refused")?;
    pod.end()
}
