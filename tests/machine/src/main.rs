//! The VMM's own code on a real kernel, beyond what a whole container shows.
//!
//! `nacre-machine-tests [FILTER]` prints `PASS name (seconds)`, `FAIL name: why` or `SKIP name: why` for each case;
//! `nacre-machine-tests bench RUNS` measures starts, a line of JSON for each sample.

mod bench;
mod case;
mod ends;
mod guest;
mod protected;
mod tampering;

use std::process::ExitCode;
use std::time::Instant;

use case::Case;
use kvm_ioctls::Kvm;

/// Cases, and what tells why they can't run here.
type Group = (&'static [Case], fn(&Kvm) -> Option<String>);

const GROUPS: [Group; 3] = [
    (ends::CASES, guest::missing),
    (tampering::CASES, guest::missing),
    (protected::CASES, protected::missing),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bench", runs] => bench::run(runs),
        ["bench-one", way, folder] => bench::one(way, folder),
        _ => cases(words.first().map_or("", String::as_str)),
    }
}

fn cases(filter: &str) -> ExitCode {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm can't be opened: {error}"));
    let mut failed = false;
    for (cases, group) in GROUPS {
        for case in cases.iter().filter(|case| case.name.contains(filter)) {
            let able = kvm.as_ref().map_err(Clone::clone).and_then(|kvm| match group(kvm) {
                Some(why) => Err(why),
                None => Ok(kvm),
            });
            match able {
                Ok(kvm) => failed |= !run(case, kvm),
                Err(why) => println!("SKIP {}: {why}", case.name),
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(case: &Case, kvm: &Kvm) -> bool {
    let began = Instant::now();
    match (case.run)(kvm) {
        Ok(()) => println!("PASS {} ({:.1} s)", case.name, began.elapsed().as_secs_f32()),
        Err(why) => {
            println!("FAIL {}: {why}", case.name);
            return false;
        }
    }
    true
}
