//! Pods whose machines are measured: in the simulated platform, and on hosts that have no other.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Test;
use crate::context::Context;
use crate::disturbance;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::process::{self, Finished};
use crate::task::Task;
use crate::timeline;

pub const TESTS: &[Test] = &[
    Test::new("tee-simulated", "a measured start through stage0, in the simulated platform", simulated)
        .only_nacre()
        .alone(),
    Test::new("tee-simulated-cpus", "a measured start with two CPUs", simulated_cpus).only_nacre().alone(),
    Test::new(
        "tee-simulated-other-images",
        "stage0 refuses a kernel or an initrd that is not the one that was measured",
        simulated_other_images,
    )
    .only_nacre()
    .alone(),
    Test::new(
        "tee-simulated-report",
        "a report of a simulated pod is accepted with its own root only, and not with a byte changed",
        simulated_report,
    )
    .only_nacre()
    .alone(),
    Test::new(
        "tee-simulated-tdx-report",
        "a quote of a simulated TDX pod is accepted by its plan with its own root only, and not with a byte changed",
        simulated_quote,
    )
    .only_nacre()
    .alone(),
    Test::new(
        "tee-simulated-tdx-report-cpus",
        "the same of a pod with four CPUs",
        simulated_quote_cpus,
    )
    .only_nacre()
    .alone(),
    Test::new("tee-snp-refused", "an SEV-SNP pod on a host without it is refused at once", snp_refused)
        .only_nacre()
        .alone(),
    Test::new("tee-tdx-refused", "an Intel TDX pod on a host without it is refused at once", tdx_refused)
        .only_nacre()
        .alone(),
];

/// Where the guest's files are, and the cache that remembers their hashes.
const GUEST: &str = "/usr/share/nacre";
const CACHE: &str = "/var/lib/nacre/layers";
/// Whose keys sign what simulated pods report.
const KEYS: &str = "/var/lib/nacre/simulated";
/// What whoever asks for a report has put into it.
const DATA: &str = "00c0ffee";

fn simulated(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    let script = "cat /proc/cmdline; grep -c ^processor /proc/cpuinfo";
    let inside = context.container("a").script(script).run()?.exited(0)?.stdout;
    // Every place of a device is named, whether there is one or not: the line is measured.
    contains("the command line", &inside, "virtio_mmio.device=4K@0xd0012000:23")?;
    check(inside.ends_with("\n1\n"), || format!("not one CPU: {inside}"))?;
    // T4 is the end of the launch, T6 that of stage0.
    timeline::in_order(&timeline::of(&context.id("a"))?, &["T3", "T4", "T5", "T6", "T7", "T8"])
}

fn simulated_cpus(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    let container = context.container("a").flags(&["--cpu-quota", "200000", "--cpu-period", "100000"]);
    container.script("grep -c ^processor /proc/cpuinfo").run()?.wrote("2\n").map(|_| ())
}

/// The host remembers hashes of the files, and puts them into what is measured: with one bit of them changed, the files are
/// others than what was measured.
fn simulated_other_images(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    context.container("a").command(&["true"]).run()?.exited(0)?;
    for (name, what) in [("vmlinux", "kernel"), ("initrd.img", "initrd")] {
        let file = fs::metadata(Path::new(GUEST).join(name)).map_err(Failure::io(name))?;
        let note = Path::new(CACHE).join(format!("sha256-{:x}-{:x}.note", file.dev(), file.ino()));
        let planned = fs::read(&note).map_err(Failure::io(note.display().to_string()))?;
        let mut other = planned.clone();
        let Some(last) = other.last_mut() else {
            return wrong(format!("no hash of the {what} is remembered"));
        };
        *last ^= 1;
        let write = |bytes: &[u8]| fs::write(&note, bytes).map_err(Failure::io(note.display().to_string()));
        write(&other)?;
        let started = context.container(what).command(&["true"]).run();
        write(&planned)?;
        let said = started?.failed()?.stderr;
        contains("standard error", &said, &format!("the {what} is not the one that was measured"))?;
    }
    Ok(())
}

fn simulated_report(context: &Context) -> Outcome {
    let _configuration = disturbance::configuration("[vm]\ntee = \"simulated\"\n")?;
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let result = reported(context, &task);
    result.and(task.end())
}

fn simulated_quote(context: &Context) -> Outcome {
    quoted(context, "100000", 1)
}

fn simulated_quote_cpus(context: &Context) -> Outcome {
    quoted(context, "200000", 4)
}

/// What whoever asks a pod of the simulated TDX platform for a report gets, and is told about it.
fn quoted(context: &Context, quota: &str, cpus: u32) -> Outcome {
    // A pod gets no more than the node's CPUs, two, which are rounded up to what measured machines can have.
    let _configuration = disturbance::configuration(
        "[vm]\ntee = \"simulated\"\n[confidential]\nsimulated_platform = \"tdx\"\nvcpus = [1, 4]\n",
    )?;
    let container = context.container("a").flags(&["--cpu-quota", quota, "--cpu-period", "100000"]);
    let task = container.command(&["sleep", "1000"]).detach()?;
    let counted = task
        .exec("cpus", &["grep", "-c", "^processor", "/proc/cpuinfo"])
        .and_then(|finished| finished.wrote(&format!("{cpus}\n")));
    let result = counted.and_then(|_| quote_is_judged(context, &task, cpus));
    result.and(task.end())
}

fn quote_is_judged(context: &Context, task: &Task, cpus: u32) -> Outcome {
    let root = format!("{KEYS}/tdx/root.pem");
    let collateral = format!("{KEYS}/tdx/collateral.json");
    let folder = format!("/run/{}", context.id("quotes"));
    fs::create_dir_all(&folder).map_err(Failure::io("no folder for quotes"))?;
    let path = format!("{folder}/quote");
    nacre(&["report", &task.id, "--data", DATA, "--output", &path])?.exited(0)?;
    let verify = |path: &str, more: &[&str]| {
        let words = ["verify", path, "--collateral", &collateral, "--report-data", DATA, "--json"];
        nacre(&[&words[..], more].concat())
    };
    let accepted = json(&verify(&path, &["--root", &root, "--plan"])?.exited(0)?)?;
    equal("accepted", accepted["accepted"].as_bool(), Some(true))?;
    equal("confidential", accepted["confidential"].as_bool(), Some(false))?;
    equal("the technology", accepted["tee"].as_str(), Some("simulated-tdx"))?;
    for step in ["signature", "measurement", "report data", "rtmr1", "rtmr2"] {
        check(is_step(&accepted, step, "ok"), || format!("nobody looked at {step}: {accepted}"))?;
    }
    let found = steps(&accepted).find(|step| step["name"] == "measurement");
    let found = found.and_then(|step| step["found"].as_str()).unwrap_or_default();
    contains("the measurement", found, &format!("{cpus} vCPUs"))?;
    let (measurement, _) = found.split_once(',').unwrap_or_default();

    // Who trusts Intel's root alone.
    let refused = json(&verify(&path, &["--expect", measurement])?.exited(1)?)?;
    equal("wrong steps without the root", wrong_steps(&refused), vec!["root"])?;

    // One bit of the header, MRTD, RTMR2, the report data, the signature, its key, what follows, which nobody signs, and the
    // quoting enclave's report.
    let bytes = fs::read(&path).map_err(Failure::io("no quote"))?;
    let changed = format!("{folder}/changed");
    let signed = [0x0c, 184, 48 + 424, 568, 636, 700, 780].map(|place| (place, "signature"));
    for (place, step) in signed.into_iter().chain([(764, "certificates")]) {
        let mut bytes = bytes.clone();
        let Some(byte) = bytes.get_mut(place) else { return wrong(format!("a quote without byte {place}")) };
        *byte ^= 1;
        fs::write(&changed, bytes).map_err(Failure::io("the changed quote can't be written"))?;
        let refused = json(&verify(&changed, &["--root", &root, "--expect", measurement])?.exited(1)?)?;
        equal("wrong steps of a changed quote", wrong_steps(&refused), vec![step])?;
    }
    fs::remove_dir_all(&folder).map_err(Failure::io("the quotes can't be removed"))
}

/// What whoever asks a pod for a report gets, and is told about it.
fn reported(context: &Context, task: &Task) -> Outcome {
    let root = format!("{KEYS}/ark.pem");
    let folder = format!("/run/{}", context.id("reports"));
    fs::create_dir_all(&folder).map_err(Failure::io("no folder for reports"))?;
    let path = format!("{folder}/report");
    nacre(&["report", &task.id, "--data", DATA, "--output", &path])?.exited(0)?;
    let verify = |path: &str, more: &[&str]| {
        nacre(&[&["verify", path, "--certs", KEYS, "--plan", "--report-data", DATA, "--json"], more].concat())
    };
    let own = ["--root", root.as_str()];
    let accepted = json(&verify(&path, &own)?.exited(0)?)?;
    equal("accepted", accepted["accepted"].as_bool(), Some(true))?;
    equal("confidential", accepted["confidential"].as_bool(), Some(false))?;
    equal("the technology", accepted["tee"].as_str(), Some("simulated"))?;
    equal("wrong steps", wrong_steps(&accepted), Vec::new())?;
    for step in ["root", "signature", "measurement", "report data"] {
        check(is_step(&accepted, step, "ok"), || format!("nobody looked at the {step}: {accepted}"))?;
    }

    // Who trusts AMD's roots alone.
    let refused = json(&verify(&path, &[])?.exited(1)?)?;
    equal("wrong steps without the root", wrong_steps(&refused), vec!["root"])?;

    // One bit of the measurement, SEV-SNP firmware ABI 56860, table "ATTESTATION_REPORT Structure".
    let mut bytes = fs::read(&path).map_err(Failure::io("no report"))?;
    let Some(byte) = bytes.get_mut(0x90) else { return wrong("a report without a measurement") };
    *byte ^= 1;
    let changed = format!("{folder}/changed");
    fs::write(&changed, bytes).map_err(Failure::io("the changed report can't be written"))?;
    let refused = json(&verify(&changed, &own)?.exited(1)?)?;
    equal("wrong steps of a changed report", wrong_steps(&refused), vec!["signature", "measurement"])?;

    contains("nacre ps", &nacre(&["ps"])?.exited(0)?.stdout, "simulated (not confidential)")?;
    fs::remove_dir_all(&folder).map_err(Failure::io("the reports can't be removed"))
}

fn nacre(words: &[&str]) -> Result<Finished, Failure> {
    process::run(Command::new("nacre").args(words))
}

fn json(finished: &Finished) -> Result<Value, Failure> {
    serde_json::from_str(&finished.stdout).map_err(Failure::other("no JSON from nacre verify"))
}

fn steps(verdict: &Value) -> impl Iterator<Item = &Value> {
    verdict["steps"].as_array().into_iter().flatten()
}

fn is_step(verdict: &Value, name: &str, result: &str) -> bool {
    steps(verdict).any(|step| step["name"] == name && step["result"] == result)
}

fn wrong_steps(verdict: &Value) -> Vec<&str> {
    let wrong = steps(verdict).filter(|step| step["result"] == "failed");
    wrong.filter_map(|step| step["name"].as_str()).collect()
}

fn snp_refused(context: &Context) -> Outcome {
    if Path::new("/dev/sev").exists() {
        return context.cannot_run("this host has SEV-SNP");
    }
    refused(
        context,
        "snp",
        &["SEV-SNP is not possible on this host", "/dev/sev can't be opened", "kvm_amd.sev_snp=1"],
    )
}

fn tdx_refused(context: &Context) -> Outcome {
    const PARAMETER: &str = "/sys/module/kvm_intel/parameters/tdx";
    if fs::read_to_string(PARAMETER).is_ok_and(|value| value.trim() == "Y") {
        return context.cannot_run("this host has Intel TDX");
    }
    refused(context, "tdx", &["Intel TDX is not possible on this host", "kvm_intel.tdx=1"])
}

/// A pod of this technology is refused at once, with these words.
fn refused(context: &Context, tee: &str, words: &[&str]) -> Outcome {
    // What the same takes that starts no machine: most of it is containerd's and ctr's.
    let other = disturbance::configuration("[guest]\nkernel = \"/no/such/kernel\"\n")?;
    let began = Instant::now();
    context.container("a").command(&["true"]).run()?.exited(1)?;
    let least = began.elapsed();
    drop(other);
    let _configuration = disturbance::configuration(&format!("[vm]\ntee = \"{tee}\"\n"))?;
    let began = Instant::now();
    let refused = context.container("b").command(&["true"]).run()?.exited(1)?;
    let took = began.elapsed().saturating_sub(least);
    for part in words {
        contains("standard error", &refused.stderr, part)?;
    }
    // In an emulated node starting any process takes its time: there it is no more than all the rest.
    let limit = Duration::from_secs(1).max(least);
    check(took < limit, || format!("the refusal took {took:?}, everything else {least:?}"))?;
    equal("lines of the refusal", refused.stderr.trim().lines().count(), 1)
}
