//! What is missing or wrong on the node: `ctr run` fails within seconds, says what and where, and leaves nothing.
//!
//! That nothing is left is checked for every test that runs alone.

use std::fs;

use super::Test;
use crate::context::Context;
use crate::disturbance::{self, SMALL};
use crate::failure::{Failure, Outcome, check, contains};
use crate::launch::BUSYBOX;
use crate::timeline;
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    fault("no-guest-kernel", "the guest kernel's file is missing", no_kernel),
    fault("wrong-guest-kernel", "the guest kernel's file is no kernel", wrong_kernel),
    fault("no-initrd", "the initrd's file is missing", no_initrd),
    fault("corrupt-initrd", "the initrd's content is garbage", corrupt_initrd),
    fault("guest-kernel-panic", "the guest kernel panics", kernel_panic),
    fault("silent-agent", "the agent never comes up", silent_agent),
    fault("given-up", "containerd gives up waiting for a container that is being made", given_up),
    fault("no-vmm", "the VMM's program is missing", no_vmm),
    fault("no-kvm", "/dev/kvm is missing", no_kvm),
    fault("forbidden-kvm", "/dev/kvm may not be opened", forbidden_kvm),
    fault("no-memory", "there is no memory for the VM", no_memory),
    fault("memory-runs-out", "memory for the VM is gone while its guest starts", memory_runs_out),
    fault("cache-full", "the layer cache's disk is full", cache_full),
    fault("unknown-key", "the configuration has an unknown key", unknown_key),
    fault("wrong-value", "the configuration has a value that can't be", wrong_value),
];

const fn fault(name: &'static str, shows: &'static str, run: fn(&Context) -> Outcome) -> Test {
    Test::new(name, shows, run).only_nacre().alone()
}

/// Fails unless a container is refused within seconds with an error that has all these parts.
fn refused(context: &Context, parts: &[&str]) -> Outcome {
    let finished = context.container("a").command(&["true"]).run()?.failed()?;
    for part in parts {
        contains("the error", &finished.stderr.to_lowercase(), &part.to_lowercase())?;
    }
    check(finished.took < SECONDS, || format!("it took {} s", finished.took.as_secs()))?;
    context.gone(&context.id("a"))
}

fn no_kernel(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[guest]\nkernel = \"/no/such/vmlinux\"\n")?;
    refused(context, &["kernel", "/no/such/vmlinux", "no such file"])
}

fn wrong_kernel(context: &Context) -> Outcome {
    let garbage = garbage(context)?;
    let _fault = disturbance::configuration(&format!("[guest]\nkernel = \"{}\"\n", garbage.0))?;
    refused(context, &["kernel"])
}

fn no_initrd(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[guest]\ninitrd = \"/no/such/initrd\"\n")?;
    refused(context, &["/no/such/initrd", "no such file"])
}

fn corrupt_initrd(context: &Context) -> Outcome {
    let garbage = garbage(context)?;
    let _fault = disturbance::configuration(&format!("[guest]\ninitrd = \"{}\"\n", garbage.0))?;
    refused(context, &["panic"])
}

fn kernel_panic(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[guest]\nkernel_parameters = \"rdinit=/no/such/init\"\n")?;
    refused(context, &["panic"])
}

fn silent_agent(context: &Context) -> Outcome {
    let text = "[guest]\nkernel_parameters = \"agent.announce=0\"\n[timeouts]\nstart_seconds = 12\n";
    let _fault = disturbance::configuration(text)?;
    refused(context, &["agent", "12"])?;
    // A launch that failed leaves its line, too.
    let launch = timeline::of(&context.id("a"))?;
    contains("the launch's error", launch["error"].as_str().unwrap_or_default(), "agent")
}

fn given_up(context: &Context) -> Outcome {
    let text = "[guest]\nkernel_parameters = \"agent.announce=0\"\n[timeouts]\nstart_seconds = 120\n";
    let _fault = disturbance::configuration(text)?;
    let id = context.id("a");
    let runtime = context.options.runtime.as_str();
    let words = ["--timeout", "8s", "run", "--rm", "--runtime", runtime, BUSYBOX, &id, "true"];
    let refused = context.run_ctr(&words)?.failed()?;
    check(refused.took < SECONDS, || format!("it took {} s", refused.took.as_secs()))?;
    // ctr is out of time for cleaning up, too.
    for words in [["snapshot", "rm"], ["container", "rm"]] {
        context.run_ctr(&[words[0], words[1], &id])?;
    }
    eventually(SECONDS, || context.gone(&id))
}

fn no_vmm(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[vmm]\npath = \"/no/such/nacre-vmm\"\n")?;
    refused(context, &["/no/such/nacre-vmm", "no such file"])
}

fn no_kvm(context: &Context) -> Outcome {
    let _fault = disturbance::no_kvm()?;
    refused(context, &["/dev/kvm", "no such file"])
}

fn forbidden_kvm(context: &Context) -> Outcome {
    let _fault = disturbance::forbidden_kvm()?;
    refused(context, &["/dev/kvm", "permission denied"])
}

fn no_memory(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ndefault_memory_mib = 8192\n")?;
    let _fault = disturbance::little_memory(6144)?;
    refused(context, &["memory"])
}

fn memory_runs_out(context: &Context) -> Outcome {
    let name = context.id("full");
    let _fault = disturbance::full_cgroup(&name, 400, 24)?;
    let group = format!("/{name}/a");
    let finished = context.container("a").flags(&["--cgroup", &group]).command(&["true"]).run()?.failed()?;
    contains(
        "the error",
        &finished.stderr,
        &format!("no memory is left, on the host or within the limits of /sys/fs/cgroup/{name}"),
    )?;
    context.gone(&context.id("a"))
}

fn cache_full(context: &Context) -> Outcome {
    let _fault = disturbance::small_file_system("mode=700")?;
    let _configuration = disturbance::configuration(&format!("[image]\ncache_path = \"{SMALL}/layers\"\n"))?;
    refused(context, &[SMALL, "no space left"])
}

fn unknown_key(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[guest]\nkernal = \"/x\"\n")?;
    refused(context, &["kernal", "99-nacre-tests.toml", "kernel"])
}

fn wrong_value(context: &Context) -> Outcome {
    let _fault = disturbance::configuration("[vm]\ndefault_vcpus = 0\n")?;
    refused(context, &["99-nacre-tests.toml", "default_vcpus"])
}

/// A file of a megabyte that is nothing, removed in the end.
fn garbage(context: &Context) -> Result<Garbage, Failure> {
    let path = std::env::temp_dir().join(context.id("garbage")).display().to_string();
    let mut bytes = vec![0; 1 << 20];
    crate::pattern::Pattern::default().fill(&mut bytes);
    fs::write(&path, bytes).map_err(Failure::io(format!("can't write {path}")))?;
    Ok(Garbage(path))
}

struct Garbage(String);

impl Drop for Garbage {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
