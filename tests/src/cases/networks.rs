//! A network namespace with an interface, as CNI leaves it, and a container that uses it.

use std::process::Command;

use super::Test;
use crate::context::Context;
use crate::failure::{Outcome, contains};
use crate::process;

pub const TESTS: &[Test] = &[
    Test::new("network", "a container has its namespace's interface and reaches the node", network).alone(),
    Test::new("network-of-host", "the node's own network is refused", host).only_nacre(),
];

const NAMESPACE: &str = "nacre-tests";
const NODE: &str = "10.213.7.1";
const CONTAINER: &str = "10.213.7.2";

/// The namespace, its interface, and the interface's other end on the node; gone when dropped.
struct Wire;

impl Wire {
    fn new() -> Result<Self, crate::failure::Failure> {
        // First, so that what is made is also taken away when the rest fails.
        let wire = Self;
        let address = format!("{CONTAINER}/24");
        let own = format!("{NODE}/24");
        let inside = ["-n", NAMESPACE];
        for words in [
            &["netns", "add", NAMESPACE][..],
            &["link", "add", "nacre-tests0", "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE],
            &["address", "add", &own, "dev", "nacre-tests0"],
            &["link", "set", "nacre-tests0", "up"],
            &[&inside[..], &["address", "add", &address, "dev", "eth0"]].concat(),
            &[&inside[..], &["link", "set", "eth0", "mtu", "1400", "up"]].concat(),
            &[&inside[..], &["route", "add", "default", "via", NODE]].concat(),
        ] {
            process::run(Command::new("ip").args(words))?.exited(0)?;
        }
        Ok(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = process::run(Command::new("ip").args(["link", "del", "nacre-tests0"]));
        let _ = process::run(Command::new("ip").args(["netns", "del", NAMESPACE]));
    }
}

fn network(context: &Context) -> Outcome {
    let _wire = Wire::new()?;
    let namespace = format!("network:/run/netns/{NAMESPACE}");
    let script = format!("ip link show eth0; ip address show eth0; ip route; ping -c 2 -W 20 {NODE}");
    let container = context.container("a").flags(&["--with-ns", &namespace]).script(&script);
    let shown = container.run()?.exited(0)?.stdout;
    for part in ["mtu 1400", CONTAINER, &format!("default via {NODE}"), "0% packet loss"] {
        contains("the network inside", &shown, part)?;
    }
    Ok(())
}

fn host(context: &Context) -> Outcome {
    let refused = context.container("a").flags(&["--net-host"]).command(&["true"]).run()?.failed()?;
    contains("the error", &refused.stderr, "host")
}
