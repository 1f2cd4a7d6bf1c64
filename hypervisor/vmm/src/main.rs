//! The virtual machine monitor's program. See the library for what it does.

use std::process::ExitCode;
use std::sync::Mutex;

use nacre_control::{Channel, Event, Request, StopReason, VmConfig};
use nacre_vmm::files::Files;
use nacre_vmm::machine::Machine;
use nacre_vmm::reports::{Report, Reporter, moment};
use nacre_vmm::supervise::Supervisor;
use nacre_vmm::{chain_text, process};
use nix::sys::signalfd::SignalFd;
use slog::{Drain, Logger, o};

fn main() -> ExitCode {
    let (channel, signals) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("nacre-vmm: {}", chain_text(&error));
            return ExitCode::FAILURE;
        }
    };
    match serve(&channel, &signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let stopped = Event::Stopped { reason: StopReason::Failed(text), console_tail: String::new() };
            // Nobody listens when the shim is gone.
            let _ = channel.send(&stopped, &[]);
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> Result<(Channel, SignalFd), process::ProcessError> {
    let control = process::confine()?;
    let signals = process::ending_signals()?;
    Ok((Channel::from_fd(control), signals))
}

/// Runs the one machine of this process. An error is what kept it from starting.
fn serve(channel: &Channel, signals: &SignalFd) -> Result<(), String> {
    let (config, files) = first_request(channel)?;
    let mut moments = vec![moment(2)];
    let (reporter, reports, bell) = Reporter::new().map_err(|error| chain_text(&error))?;
    report_panics(reporter.clone());
    let machine = Machine::start(&config, files, &reporter, &mut moments, &logger())
        .map_err(|error| chain_text(&error))?;
    drop(config);
    let supervisor = Supervisor { channel, signals, reports, bell };
    let reason = supervisor.run(&machine, moments);
    supervisor.say_goodbye(&machine, reason);
    // The CPUs still run; they end with the process, now.
    Ok(())
}

fn first_request(channel: &Channel) -> Result<(Box<VmConfig>, Files), String> {
    match channel.receive::<Request>().map_err(|error| chain_text(&error))? {
        (Request::Start(config), files) => Ok((config, Files::new(files))),
        (other, _) => Err(format!("the first request must be a start, not {other:?}")),
    }
}

/// A thread that panics must not leave a guest behind that waits for it.
fn report_panics(reporter: Reporter) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        reporter.send(Report::Ended(StopReason::Failed(format!("an internal error{place}"))));
    }));
}

/// One JSON object a line to stderr, which the shim joins to the pod's log.
fn logger() -> Logger {
    let lines = slog_json::Json::default(std::io::stderr()).fuse();
    Logger::root(Mutex::new(lines).fuse(), o!())
}
