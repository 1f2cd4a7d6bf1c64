//! The guest's PID 1: runs the containers of a pod.
//!
//! In a VM it is the init process, mounts what it needs and tells the host when it can serve. With an address in
//! `KATA_AGENT_SERVER_ADDR` it runs on any Linux machine, in namespaces of its own.
//!
//! A call goes from [`rpc`] to the [`sandbox::Sandbox`], which holds the [`container::Container`]s, which hold the
//! [`process::Process`]es. Processes are made by the [`spawner`], their ends collected by the [`reaper`], their
//! streams carried by [`stdio`], and what is mounted for them is done by the drivers in [`storage`].

use std::env;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slog::{Logger, error, info, warn};
use tokio::signal::unix::SignalKind;

mod cgroup;
mod clock;
mod container;
mod copy_file;
mod details;
mod entropy;
mod error;
mod events;
mod forward;
mod id;
mod init;
mod isolation;
mod kernel_log;
mod lock;
mod log;
mod marker;
mod network;
mod options;
mod process;
mod readiness;
mod reaper;
mod report;
mod rpc;
mod sandbox;
mod server;
mod signal;
mod spawner;
mod spec;
mod stdio;
mod storage;
mod teardown;
mod termination_log;
mod uevent;
mod volumes;

use error::{Doing, Failure, Reply};
use isolation::Bound;
use options::{ADDRESS_VARIABLE, LEVEL_VARIABLE, Options};
use reaper::Reaper;
use sandbox::Sandbox;
use server::Servers;
use spawner::Spawner;

/// Each process of a container needs about ten.
const MAX_FILES: u64 = 65536;

/// More threads than this help no pod: they only carry streams.
const MAX_THREADS: usize = 4;

fn main() -> ExitCode {
    match env::var(ADDRESS_VARIABLE) {
        Ok(address) => run_isolated(address),
        Err(_) if std::process::id() == 1 => run_as_init(),
        Err(_) => {
            eprintln!("nacre-agent: not PID 1 of a VM, and no address in {ADDRESS_VARIABLE}");
            ExitCode::from(2)
        }
    }
}

fn run_as_init() -> ExitCode {
    marker::started();
    let mut failed = Vec::new();
    if let Err(error) = init::leave_first_root() {
        failed.push(format!("another root: {error}"));
    }
    failed.extend(init::mount_all());
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let options = Options::from_command_line(&line);
    let error = match run(&options, Bound::Later, &failed) {
        Ok(()) => init::power_off(),
        Err(failure) => {
            eprintln!("nacre-agent: {}", failure.text());
            init::crash()
        }
    };
    eprintln!("nacre-agent: the VM does not end: {error}");
    ExitCode::FAILURE
}

fn run_isolated(address: String) -> ExitCode {
    let level = env::var(LEVEL_VARIABLE).ok();
    let options = Options::from_environment(address, level.as_deref());
    let entered = isolation::bind(&options.address).and_then(|bound| isolation::enter().map(|()| bound));
    let result = entered.doing("isolate the agent").and_then(|bound| run(&options, bound, &[]));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nacre-agent: {}", failure.text());
            ExitCode::FAILURE
        }
    }
}

/// Serves until the pod is to end. The process has one thread when this is called.
fn run(options: &Options, bound: Bound, failed: &[String]) -> Reply<()> {
    cgroup::step_aside().doing("enter a cgroup")?;
    let spawner = start_spawner()?;
    // Not for the spawner: what it makes must not inherit this.
    allow_many_files().doing("allow many open files")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .doing("start the runtime")?;
    let log = log::logger(options.level);
    for what in failed {
        error!(log, "not mounted"; "what" => what);
    }
    runtime.block_on(serve(options, bound, spawner, log))
}

/// As many open files as wanted, or else as this process may have.
fn allow_many_files() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES).or_else(|_| {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)
    })
}

/// Forks the spawner, while there is one thread and no open file but the standard ones.
fn start_spawner() -> Reply<Spawner> {
    let (ours, theirs) = Spawner::pair().doing("make the spawner's socket")?;
    match spawner::fork_child().doing("make the spawner")? {
        Some(_) => Ok(ours),
        None => {
            drop(ours);
            spawner::serve(theirs)
        }
    }
}

async fn serve(options: &Options, bound: Bound, spawner: Spawner, log: Logger) -> Reply<()> {
    let signals = Reaper::signals().doing("listen for the end of children")?;
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate()).doing("listen for SIGTERM")?;
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt()).doing("listen for SIGINT")?;
    let reaper = Arc::new(Reaper::default());
    let reaping = tokio::spawn({
        let reaper = Arc::clone(&reaper);
        async move { reaper.run(signals).await }
    });
    let sandbox = Arc::new(Sandbox::new(log.clone(), spawner, reaper, options.own_machine));
    let mut servers = Servers::start(&sandbox, &options.address, bound).await?;
    if options.forward {
        servers.forward(&sandbox);
    }
    if options.announce {
        servers.announce(&sandbox).await?;
    }
    info!(log, "serving"; "address" => &options.address);
    // What the first container needs and the announcement need not wait for.
    if let Err(failure) = sandbox.prepare_cgroups().await {
        warn!(log, "no cgroups"; "error" => failure.text());
    }
    if let Err(failure) = network::loopback_up().await {
        warn!(log, "no loopback"; "error" => failure.text());
    }
    if options.own_machine {
        init::quieten();
    }
    let result = tokio::select! {
        () = sandbox.ended.notified() => Ok(()),
        _ = terminate.recv() => {
            sandbox.destroy().await;
            Ok(())
        }
        _ = interrupt.recv() => {
            sandbox.destroy().await;
            Ok(())
        }
        _ = reaping => Err(Failure::new(nacre_protocol::ttrpc::Code::INTERNAL, "children can't be collected")),
    };
    info!(log, "ending");
    servers.stop().await;
    result
}
