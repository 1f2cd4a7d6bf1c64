//! Running cases: each is a process with a deadline, since a guest may loop forever and a machine is never taken apart.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases;
use crate::error::Error;
use crate::image;

/// Much more than a case takes in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// Runs one case in this process.
pub fn one(stage0: &Path, name: &str) -> Result<(), Error> {
    let case = cases::all().into_iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| Error::Wrong(format!("no case {name}")))?;
    let note = (case.run)(&image::read(stage0)?)?;
    println!("{note}");
    Ok(())
}

/// Runs all cases whose name contains `filter`. Says whether all passed.
pub fn all(stage0: &Path, filter: &str) -> Result<bool, Error> {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in cases::all() {
        let name = format!("stage0-{}", case.name);
        if !name.contains(filter) {
            continue;
        }
        if let Err(why) = kvm_ioctls::Kvm::new() {
            println!("SKIP {name}: no /dev/kvm ({why})");
            skipped += 1;
            continue;
        }
        let began = Instant::now();
        let (good, output) = child(stage0, case.name)?;
        let seconds = began.elapsed().as_secs_f32();
        let output = output.trim();
        if good {
            println!("PASS {name} ({seconds:.1} s) {output}");
            passed += 1;
        } else {
            println!("FAIL {name}: {}", output.replace('\n', "\n    "));
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// Runs a case as a process and returns whether it passed, and what it printed.
fn child(stage0: &Path, name: &str) -> Result<(bool, String), Error> {
    let process = |source: io::Error| Error::File { what: format!("can't run case {name}"), source };
    let mut command = Command::new("/proc/self/exe");
    command.arg("--stage0").arg(stage0).args(["--one", name]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(process)?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let (done, ended) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut output = String::new();
        let _ = stdout.as_mut().map(|stream| stream.read_to_string(&mut output));
        let _ = stderr.as_mut().map(|stream| stream.read_to_string(&mut output));
        let status = child.wait();
        let _ = done.send(());
        (status, output)
    });
    let late = ended.recv_timeout(DEADLINE).is_err();
    if late {
        // The thread waits for it, so that the number is still its own.
        let _ = kill(id, Signal::SIGKILL);
    }
    let (status, mut output) =
        waiter.join().map_err(|_| Error::Wrong("the waiting thread panicked".into()))?;
    if late {
        output = format!("did not end in {} s\n{output}", DEADLINE.as_secs());
    }
    Ok((status.map_err(process)?.success() && !late, output))
}
