//! A network namespace with an interface, as CNI leaves it, and a container that uses it.

use std::fs;
use std::process::{Child, Command};

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains};
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("network", "a container has its namespace's interface and reaches the node", network).alone(),
    Test::new("network-of-host", "the node's own network is refused", host).only_nacre(),
];

const NODE: &str = "10.213.7.1";
const CONTAINER: &str = "10.213.7.2";

/// A process whose network namespace has an interface, with the other end on the node; all gone when dropped.
struct Wire(Child);

impl Wire {
    fn new() -> Result<Self, Failure> {
        // No `ip netns`: that would leave a mount behind on a node that never had one.
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn();
        let wire = Self(holder.map_err(Failure::io("can't start unshare"))?);
        let own = fs::read_link("/proc/self/ns/net").map_err(Failure::io("no namespace"))?;
        eventually(SECONDS, || {
            let other = fs::read_link(wire.namespace()).map_err(Failure::io("no namespace"))?;
            check(other != own, || "unshare has not begun".into())
        })?;
        let id = wire.0.id().to_string();
        let (address, node) = (format!("{CONTAINER}/24"), format!("{NODE}/24"));
        for words in [
            &["link", "add", "nacre-tests0", "type", "veth", "peer", "name", "eth0", "netns", &id][..],
            &["address", "add", &node, "dev", "nacre-tests0"],
            &["link", "set", "nacre-tests0", "up"],
        ] {
            process::run(Command::new("ip").args(words))?.exited(0)?;
        }
        for words in [
            &["address", "add", &address, "dev", "eth0"][..],
            &["link", "set", "eth0", "mtu", "1400", "up"],
            &["route", "add", "default", "via", NODE],
        ] {
            let inside = ["--net", "--target", &id, "ip"];
            process::run(Command::new("nsenter").args(inside).args(words))?.exited(0)?;
        }
        Ok(wire)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = process::run(Command::new("ip").args(["link", "del", "nacre-tests0"]));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn network(context: &Context) -> Outcome {
    let wire = Wire::new()?;
    let namespace = format!("network:{}", wire.namespace());
    let script = format!("ip link show eth0; ip address show eth0; ip route; ping -c 2 -W 20 {NODE}");
    let container = context.container("a").flags(&["--with-ns", &namespace]).script(&script);
    let shown = container.run()?.exited(0)?.stdout;
    for part in ["mtu 1400", CONTAINER, &format!("default via {NODE}"), " 0% packet loss"] {
        contains("the network inside", &shown, part)?;
    }
    Ok(())
}

fn host(context: &Context) -> Outcome {
    let refused = context.container("a").flags(&["--net-host"]).command(&["true"]).run()?.failed()?;
    contains("the error", &refused.stderr, "host")
}
