//! What only a virtual machine has: a kernel of its own.

use std::fs;

use super::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::timeline::{self, TIMELINE};

pub const TESTS: &[Test] = &[
    Test::new("own-kernel", "the container's kernel is not the node's", own_kernel).only_nacre(),
    Test::new("several-cpus", "a container with two CPUs sees two", several_cpus).only_nacre(),
    Test::new("split-irqchip", "with the IOAPIC in the VMM, two CPUs and all devices", split_irqchip)
        .only_nacre()
        .alone(),
    Test::new("listening-agent", "an agent that only listens, as Kata's, is dialled", listening_agent)
        .only_nacre()
        .alone(),
    Test::new("timeline", "a launch leaves one line with its moments, in order", moments)
        .only_nacre()
        .alone(),
];

fn own_kernel(context: &Context) -> Outcome {
    let nodes = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(Failure::io("no kernel release"))?;
    let inside = context.container("a").command(&["uname", "-r"]).run()?.exited(0)?.stdout;
    check(inside.trim() != nodes.trim() && !inside.trim().is_empty(), || format!("both are {inside}"))
}

fn several_cpus(context: &Context) -> Outcome {
    let container = context.container("a").flags(&["--cpu-quota", "200000", "--cpu-period", "100000"]);
    container.script("grep -c ^processor /proc/cpuinfo").run()?.wrote("2\n").map(|_| ())
}

/// The root file system is a disk, the output goes through the socket device, and random numbers and the console have
/// devices of their own: all of them interrupt.
fn split_irqchip(context: &Context) -> Outcome {
    let script = "grep -c ^processor /proc/cpuinfo; cat /proc/interrupts";
    let flags = ["--cpu-quota", "200000", "--cpu-period", "100000"];
    let interrupts = |name| {
        Ok::<_, Failure>(context.container(name).flags(&flags).script(script).run()?.exited(0)?.stdout)
    };
    // KVM brings the old PIC along, which a kernel finds and chains to its IOAPIC; where the VMM has the IOAPIC there is
    // none.
    let kernel = interrupts("a")?;
    contains("interrupts of a machine whose IOAPIC is KVM's", &kernel, "XT-PIC")?;
    let _configuration = disturbance::configuration("[vm]\nirqchip = \"split\"\n")?;
    let split = interrupts("b")?;
    check(!split.contains("XT-PIC"), || format!("there is a PIC: {split}"))?;
    check(split.starts_with("2\n"), || format!("not two CPUs: {split}"))?;
    // Number, one count for each CPU, controller, pin and trigger, device.
    let interrupted = |line: &&str| {
        let counts = line.split_whitespace().skip(1).take(2).filter_map(|count| count.parse::<u64>().ok());
        line.contains("virtio") && line.contains("IO-APIC") && counts.sum::<u64>() > 0
    };
    let busy = |text: &str| text.lines().filter(interrupted).count();
    equal("devices that interrupted", busy(&split), busy(&kernel))?;
    check(busy(&split) >= 3, || format!("too few devices interrupted: {split}"))
}

fn listening_agent(context: &Context) -> Outcome {
    let text = "[guest]\nkernel_parameters = \"agent.announce=0\"\nannounces = false\n";
    let _configuration = disturbance::configuration(text)?;
    context.container("a").command(&["echo", "heard"]).run()?.wrote("heard\n").map(|_| ())
}

fn moments(context: &Context) -> Outcome {
    let lines = || fs::read_to_string(TIMELINE).unwrap_or_default().lines().count();
    let before = lines();
    context.container("a").command(&["true"]).run()?.exited(0)?;
    equal("lines for one launch", lines(), before + 1)?;
    let line = timeline::of(&context.id("a"))?;
    equal("namespace", line["namespace"].as_str(), Some(context.options.namespace.as_str()))?;
    // T4 and T6 are of measured machines only.
    timeline::in_order(&line, &["T0", "T1", "T2", "T3", "T5", "T7", "T8", "T9", "T10", "T11", "T12"])
}
