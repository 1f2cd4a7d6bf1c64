//! Private memory as the VMM handles it, on a real kernel without the hardware: KVM's software-protected machines have
//! guest_memfd, attributes, conversions by hypercall, memory faults and prefaulting, but no encryption. Small guest
//! programs use them, and the VMM's own code serves them.
//!
//! `nacre-protected-tests [FILTER]` prints `PASS name (seconds)`, `FAIL name: why` or `SKIP name: why` for each case.

mod cases;
mod machine;
mod program;

use std::process::ExitCode;
use std::time::Instant;

use kvm_bindings::KVM_X86_SW_PROTECTED_VM;
use kvm_ioctls::Kvm;

/// Why a case failed.
pub type Failure = String;

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let cases = cases::ALL.iter().filter(|case| case.name.contains(&filter));
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm can't be opened: {error}")).and_then(|kvm| {
        let offered = nacre_vmm::snp::offers(&kvm, KVM_X86_SW_PROTECTED_VM);
        let why = "KVM offers no software-protected machines: use `cargo xtask node up --kernel protected`";
        offered.then_some(kvm).ok_or_else(|| why.to_owned())
    });
    let mut failed = false;
    for case in cases {
        let kvm = match &kvm {
            Ok(kvm) => kvm,
            Err(why) => {
                println!("SKIP {}: {why}", case.name);
                continue;
            }
        };
        let began = Instant::now();
        match (case.run)(kvm) {
            Ok(()) => println!("PASS {} ({:.1} s)", case.name, began.elapsed().as_secs_f32()),
            Err(why) => {
                println!("FAIL {}: {why}", case.name);
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
