//! What a measured start costs: the kernel started directly beside the same kernel started by stage0, alternating. Each start
//! is a process of its own, as a VMM is. Of the starts by stage0 one hashes kernel and initrd on the host, as the first on a
//! node does, the other finds the hashes remembered.

use std::path::Path;
use std::process::{Command, ExitCode};

use nacre_stage0_abi::step::Step;
use nacre_vmm::measured::Planned;
use nacre_vmm::reports::Report;
use serde_json::{Value, json};

use crate::case::{Failure, said};
use crate::guest::{self, Way};

/// Starts before the first sample: they fill caches.
const WARM_UPS: u32 = 1;

/// The kernel first.
const DIRECT: &str = "direct";
/// stage0 first; the host hashes kernel and initrd.
const HASHING: &str = "stage0, hashing";
/// stage0 first; the host knows the hashes.
const REMEMBERING: &str = "stage0";

/// Measures this many starts of each kind.
pub fn run(runs: &str) -> ExitCode {
    let measured = runs.parse::<u32>().map_err(said("the number of runs")).and_then(|runs| {
        let folder = tempfile::tempdir().map_err(said("a temporary folder"))?;
        for number in 0..runs + WARM_UPS {
            for way in [DIRECT, HASHING, REMEMBERING] {
                let samples = child(way, folder.path())?;
                if number >= WARM_UPS {
                    print!("{samples}");
                }
            }
        }
        Ok(())
    });
    finish(measured)
}

/// One start, in this process.
pub fn one(way: &str, folder: &str) -> ExitCode {
    finish(match way {
        DIRECT => measure(Way::Direct, way),
        HASHING => measure(Way::Simulated, way),
        REMEMBERING => measure(Way::Remembering(Path::new(folder)), way),
        other => Err(format!("there is no way {other} to start")),
    })
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn child(way: &str, folder: &Path) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(said("this program's file"))?;
    let output =
        Command::new(program).args(["bench-one", way]).arg(folder).output().map_err(said("a start"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8(output.stdout).map_err(said("a start's samples"))
}

fn measure(way: Way<'_>, subject: &str) -> Result<(), Failure> {
    let sample = |metric: &str, unit: &str, value: Value| {
        println!("{}", json!({ "metric": metric, "subject": subject, "unit": unit, "value": value }));
    };
    let planned = |planned: &mut Planned| {
        sample("measured", "bytes", planned.plan.measured_bytes().into());
        sample("commands_to_the_processor", "pages", planned.plan.commands().into());
        Ok(())
    };
    let guest = guest::start(way, planned)?;
    let mut moments = guest.moments.clone();
    let mut steps: Vec<(Step, u64)> = Vec::new();
    loop {
        match guest.next()? {
            Report::Running(moment) => moments.push(moment),
            Report::Stage0Did { step, ns } => steps.extend(Step::from_number(step).map(|step| (step, ns))),
            Report::Reached(moment) => {
                moments.push(moment);
                if moment.t == 8 {
                    break;
                }
            }
            Report::Ended(reason) => return Err(format!("it ended: {reason}")),
            _ => {}
        }
    }
    let at = |t: u8| moments.iter().find(|moment| moment.t == t).map(|moment| moment.ns);
    let time = |metric: &str, from: Option<u64>, to: Option<u64>| {
        if let (Some(from), Some(to)) = (from, to) {
            sample(metric, "ms", milliseconds(to.saturating_sub(from)));
        }
    };
    time("start_to_init", at(0), at(8));
    time("host_reads_and_hashes", at(0), at(3));
    time("host_launches", at(3), at(4));
    time("first_instruction_to_kernel", at(5), at(6));
    time("kernel_to_init", at(6).or(at(5)), at(8));
    let mut before = at(5);
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (step, ns) in steps {
        let name = match step {
            Step::Tables => "stage0_entry_and_tables",
            Step::Memory => "stage0_memory",
            Step::Copied => "stage0_copies",
            Step::Hashed => "stage0_hashes",
            Step::Done => "stage0_describes",
        };
        let took = ns.saturating_sub(before.unwrap_or(ns));
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => sums.push((name, took)),
        }
        before = Some(ns);
    }
    sums.into_iter().for_each(|(name, sum)| sample(name, "ms", milliseconds(sum)));
    Ok(())
}

/// Nanoseconds as milliseconds; microseconds are exact enough.
fn milliseconds(ns: u64) -> Value {
    json!(f64::from(u32::try_from(ns / 1000).unwrap_or(u32::MAX)) / 1000.0)
}
