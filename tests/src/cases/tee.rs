//! Pods whose machines are measured: in the simulated platform, and on hosts that have no other.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};

pub const TESTS: &[Test] = &[
    Test::new("tee-simulated", "a measured start through stage0, in the simulated platform", simulated)
        .only_nacre()
        .alone(),
    Test::new("tee-simulated-cpus", "a measured start with two CPUs", simulated_cpus).only_nacre().alone(),
    Test::new("tee-snp-refused", "an SEV-SNP pod on a host without it is refused at once", snp_refused)
        .only_nacre()
        .alone(),
];

const TIMELINE: &str = "/var/log/nacre/launches.jsonl";

fn simulated(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    let script = "cat /proc/cmdline; grep -c ^processor /proc/cpuinfo";
    let inside = context.container("a").script(script).run()?.exited(0)?.stdout;
    // Every place of a device is named, whether there is one or not: the line is measured.
    contains("the command line", &inside, "virtio_mmio.device=4K@0xd0012000:23")?;
    check(inside.ends_with("\n1\n"), || format!("not one CPU: {inside}"))?;
    let text = fs::read_to_string(TIMELINE).map_err(Failure::io(TIMELINE))?;
    let line: Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(Failure::other(TIMELINE))?;
    let mut last = 0;
    // T4 is the end of the launch, T6 that of stage0.
    for name in ["T3", "T4", "T5", "T6", "T8"] {
        let Some(moment) = line["moments"][name].as_u64() else { return wrong(format!("no {name}: {line}")) };
        check(moment >= last, || format!("{name} is before the one before it: {line}"))?;
        last = moment;
    }
    Ok(())
}

fn simulated_cpus(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    let container = context.container("a").flags(&["--cpu-quota", "200000", "--cpu-period", "100000"]);
    container.script("grep -c ^processor /proc/cpuinfo").run()?.wrote("2\n").map(|_| ())
}

fn snp_refused(context: &Context) -> Outcome {
    if Path::new("/dev/sev").exists() {
        return context.cannot_run("this host has SEV-SNP");
    }
    // What the same takes that starts no machine: most of it is containerd's and ctr's.
    let other = disturbance::configuration("[guest]\nkernel = \"/no/such/kernel\"\n")?;
    let began = Instant::now();
    context.container("a").command(&["true"]).run()?.exited(1)?;
    let least = began.elapsed();
    drop(other);
    let _configuration = disturbance::configuration("[vm]\ntee = \"snp\"\n")?;
    let began = Instant::now();
    let refused = context.container("b").command(&["true"]).run()?.exited(1)?;
    let took = began.elapsed().saturating_sub(least);
    for part in ["SEV-SNP is not possible on this host", "/dev/sev can't be opened", "kvm_amd.sev_snp=1"] {
        contains("standard error", &refused.stderr, part)?;
    }
    // In an emulated node starting any process takes its time: there it is no more than all the rest.
    let limit = Duration::from_secs(1).max(least);
    check(took < limit, || format!("the refusal took {took:?}, everything else {least:?}"))?;
    equal("lines of the refusal", refused.stderr.trim().lines().count(), 1)
}
