//! Network: what CNI gave is what containers have.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("network/address", "a container has the address that CRI reports", address),
    Test::new("network/pod-to-pod", "pods reach each other, the node reaches them, and they the node", reach),
    Test::new("network/point-to-point", "CNI's ptp plugin works as bridge does", point_to_point),
    Test::new("network/settings", "MTU, IPv6 and much data", settings),
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
    let mut client = Command::new("busybox");
    client.args(["nc", "-w", "10", address, &port.to_string()]);
    let said = process::run(&mut client)?;
    Ok(said.exited(0)?.stdout)
}

/// The port of a server on the node that greets each client, until the test ends.
fn server_on_node() -> Result<u16, Failure> {
    let listener = TcpListener::bind("0.0.0.0:0").map_err(Failure::io("can't listen"))?;
    let address = listener.local_addr().map_err(Failure::io("can't listen"))?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(b"hello from the node\n");
        }
    });
    Ok(address.port())
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
    let node = container.gateway()?;
    container.shell(&format!("ping -c 1 -W 20 {node}"))?;
    let ask = format!("nc -w 10 {node} {}", server_on_node()?);
    equal("to a server on the node", container.shell(&ask)?.as_str(), "hello from the node\n")?;
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
    for (number, address) in ["127.0.0.1:9090", "[::1]:9191"].into_iter().enumerate() {
        let script = format!("echo ready; exec httpd -f -p {address}");
        pod.container(&format!("server{number}")).script(&script).start()?.wait_for("ready")?;
        let port = if number == 0 { 9090 } else { 9191 };
        eventually(SECONDS, || {
            let mut port = pod.forward(port)?;
            port.write(b"GET /none HTTP/1.0\r\n\r\n")?;
            contains(address, &String::from_utf8_lossy(&port.read(12)?), " 404")
        })?;
    }
    pod.end()
}

fn settings(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    // Its plugin has an MTU.
    let pod = cri.pod("a").variant("ptp").run()?;
    let script = "ip link show eth0; ip -6 address show eth0; ip -6 route; cat /sys/class/net/lo/operstate";
    let shown = pod.container("one").script(script).run()?;
    contains("the link", &shown, "mtu 1400")?;
    contains("the addresses", &shown, "inet6 fd00:89::")?;
    contains("the routes", &shown, "default via")?;
    let waits = shown.lines().any(|line| line.contains("inet6 fd00:89::") && line.contains("tentative"));
    check(!waits, || format!("an address is not usable yet: {shown}"))?;
    // Much in both directions, for checksums and segments: through the gateway to the node, and back.
    let server = "echo ready; while :; do nc -l -p 8080 -e cat; done";
    let container = pod.container("two").script(server).start()?;
    container.wait_for("ready")?;
    let ask = format!("head -c 4000000 /dev/zero | busybox nc -w 20 {} 8080 | wc -c", pod.address()?);
    eventually(SECONDS, || {
        let said = process::run(Command::new("sh").args(["-c", &ask]))?;
        equal("bytes that come back", said.exited(0)?.stdout.trim(), "4000000")
    })?;
    pod.end()
}

fn forward_to_nothing(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let error = pod.forward(9091)?.error()?;
    // The node's kernel takes the connection before a guest can be asked, and resets it then.
    let refused = ["refused", "reset"].iter().any(|word| error.contains(word));
    check(refused, || format!("the error is {error:?}"))?;
    pod.end()
}
