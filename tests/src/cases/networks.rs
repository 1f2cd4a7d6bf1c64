//! A network namespace with an interface, as CNI leaves it, and a container that uses it.

use std::fs;
use std::process::{Child, Command};

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::process;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("network", "a container has its namespace's interface and reaches the node", network).alone(),
    Test::new("network-several", "each interface of the namespace is there", several).alone(),
    Test::new(
        "network-too-many",
        "more interfaces than a machine takes are refused with the numbers",
        too_many,
    )
    .alone()
    .only_nacre(),
    Test::new("network-of-host", "the node's own network is refused", host).only_nacre(),
];

/// A process whose network namespace has interfaces, with their other ends on the node; all gone when dropped.
struct Wires {
    holder: Child,
    count: usize,
}

impl Wires {
    fn new(count: usize) -> Result<Self, Failure> {
        // No `ip netns`: that would leave a mount behind on a node that never had one.
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn();
        let wires = Self { holder: holder.map_err(Failure::io("can't start unshare"))?, count };
        let own = fs::read_link("/proc/self/ns/net").map_err(Failure::io("no namespace"))?;
        eventually(SECONDS, || {
            let other = fs::read_link(wires.namespace()).map_err(Failure::io("no namespace"))?;
            check(other != own, || "unshare has not begun".into())
        })?;
        (0..count).try_for_each(|number| wires.add(number))?;
        wires.inside(&["route", "add", "default", "via", &node(0)])?;
        Ok(wires)
    }

    /// Interface `eth<number>`, with its addresses.
    fn add(&self, number: usize) -> Outcome {
        let (name, peer) = (format!("eth{number}"), format!("nacre-tests{number}"));
        let holder = self.holder.id().to_string();
        let (address, node) = (format!("{}/24", container(number)), format!("{}/24", node(number)));
        for words in [
            &["link", "add", &peer, "type", "veth", "peer", "name", &name, "netns", &holder][..],
            &["address", "add", &node, "dev", &peer],
            &["link", "set", &peer, "up"],
        ] {
            process::run(Command::new("ip").args(words))?.exited(0)?;
        }
        self.inside(&["address", "add", &address, "dev", &name])?;
        self.inside(&["link", "set", &name, "mtu", "1400", "up"])
    }

    fn inside(&self, words: &[&str]) -> Outcome {
        let holder = self.holder.id().to_string();
        let inside = ["--net", "--target", &holder, "ip"];
        process::run(Command::new("nsenter").args(inside).args(words))?.exited(0).map(|_| ())
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// The option of `ctr run` for it.
    fn option(&self) -> String {
        format!("network:{}", self.namespace())
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for number in 0..self.count {
            let _ = process::run(Command::new("ip").args(["link", "del", &format!("nacre-tests{number}")]));
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The node's address on a wire.
fn node(number: usize) -> String {
    format!("10.213.{}.1", 7 + number)
}

/// The container's address on a wire.
fn container(number: usize) -> String {
    format!("10.213.{}.2", 7 + number)
}

fn network(context: &Context) -> Outcome {
    let wires = Wires::new(1)?;
    let node = node(0);
    let script = format!("ip link show eth0; ip address show eth0; ip route; ping -c 2 -W 20 {node}");
    let flags = ["--with-ns", &wires.option()];
    let shown = context.container("a").flags(&flags).script(&script).run()?.exited(0)?.stdout;
    for part in ["mtu 1400", &container(0), &format!("default via {node}"), " 0% packet loss"] {
        contains("the network inside", &shown, part)?;
    }
    Ok(())
}

fn several(context: &Context) -> Outcome {
    let wires = Wires::new(3)?;
    let pings: Vec<String> = (0..3).map(|number| format!("ping -c 1 -W 20 {}", node(number))).collect();
    let script = format!("ip address; ip route; {}", pings.join(" && "));
    let flags = ["--with-ns", &wires.option()];
    let shown = context.container("a").flags(&flags).script(&script).run()?.exited(0)?.stdout;
    for number in 0..3 {
        contains("the addresses", &shown, &format!("inet {}/24", container(number)))?;
        contains("the interfaces", &shown, &format!("eth{number}"))?;
    }
    equal("answers", shown.matches(" 0% packet loss").count(), 3)
}

fn too_many(context: &Context) -> Outcome {
    let wires = Wires::new(9)?;
    let flags = ["--with-ns", &wires.option()];
    let refused = context.container("a").flags(&flags).command(&["true"]).run()?.failed()?;
    contains("the error", &refused.stderr, "has 9 network interfaces")?;
    contains("the error", &refused.stderr, "at most 8")?;
    context.gone(&context.id("a"))
}

fn host(context: &Context) -> Outcome {
    let refused = context.container("a").flags(&["--net-host"]).command(&["true"]).run()?.failed()?;
    contains("the error", &refused.stderr, "host")
}
