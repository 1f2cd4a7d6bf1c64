//! The shim itself: serves containerd until its pod is done.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim::Flags;
use containerd_shim_protos::shim_async::create_task;
use nacre_configuration::Configuration;
use nacre_configuration::values::LogLevel;
use oci_spec::runtime::Spec;
use slog::{error, info};
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, Service as Methods};

use crate::annotations::Role;
use crate::error::{TaskError, chain};
use crate::events::Publisher;
use crate::id::Id;
use crate::inherit::inherited;
use crate::logger::logger;
use crate::pod::Pod;
use crate::recent::Recent;
use crate::service::Service;
use crate::start::{EVENTS_ADDRESS, LISTENER_FD, socket_path};
use crate::state::StateFolder;

/// The same service under its names in containerd 1.x and 2.x; the messages are equal.
const SERVICE_NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// A containerd that died right after `start` never asks for anything.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// How long containerd may take for the last events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Why a shim does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The names or the bundle.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The system.
    #[error("{doing} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The server.
    #[error("the Task service can't be served")]
    Server(#[source] ttrpc::Error),
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Io { doing, source }
}

/// Serves until containerd shuts the shim down, or SIGTERM does.
///
/// # Errors
/// The service does not start.
pub fn run(flags: &Flags) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Conversions of layers, reading of files, fifos without a reader; idle threads give their memory back soon.
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(failed("starting the runtime"))?;
    runtime.block_on(serve(flags))
}

async fn serve(flags: &Flags) -> Result<(), ServeError> {
    let listener = inherited(LISTENER_FD).map_err(failed("taking over the socket"))?;
    let listener = StdUnixListener::from(listener);
    listener.set_nonblocking(true).map_err(failed("taking over the socket"))?;

    let (id, namespace) = (Id::new(&flags.id)?, Id::new(&flags.namespace)?);
    let spec = Spec::load("config.json")
        .map_err(|source| TaskError::BadBundle { path: "config.json".into(), source })?;
    let sandbox = Role::of(&spec)?.sandbox(&id).clone();
    drop(spec);
    let configuration = Configuration::load().map_err(|error| chain(&error));
    let recent = Recent::default();
    let log = {
        let level = configuration.as_ref().map_or(LogLevel::Info, |configuration| configuration.log.level);
        let level = if flags.debug { LogLevel::Debug } else { level };
        let wanted = configuration.as_ref().ok().filter(|configuration| configuration.log.pod_file);
        let file = wanted.and_then(|configuration| {
            let folder = StateFolder::of(&configuration.state.path, &namespace, &sandbox);
            folder.create().ok().map(|()| folder.file("shim.log"))
        });
        logger(level, namespace.as_str(), sandbox.as_str(), file.as_deref(), recent.clone())
    };
    if let Err(message) = &configuration {
        error!(log, "configuration is wrong"; "error" => message);
    }

    let (events, waiting) = Publisher::new(namespace.as_str(), log.clone());
    let address = std::env::var(EVENTS_ADDRESS).unwrap_or_default();
    let forwarding = tokio::spawn(waiting.forward(address, log.clone()));
    let socket = socket_path(&flags.socket).to_owned();
    let pod = Pod::new(namespace, sandbox, socket.clone(), configuration, events.clone(), log.clone());
    let pod = Arc::new(pod.remembering(recent));

    let service: Arc<dyn containerd_shim_protos::shim_async::Task + Send + Sync> =
        Arc::new(Service::new(pod.clone(), log.clone()));
    let listener = Listener::try_from(listener).map_err(failed("taking over the socket"))?;
    let mut server = Server::new().add_listener(listener);
    for name in SERVICE_NAMES {
        server = server.register_service(named(create_task(service.clone()), name));
    }
    server.start().await.map_err(ServeError::Server)?;
    info!(log, "shim serves");

    let mut terminate = signal(SignalKind::terminate()).map_err(failed("watching signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("watching signals"))?;
    let unused = async {
        tokio::time::sleep(FIRST_REQUEST).await;
        pod.shut_down(false);
    };
    tokio::select! {
        () = pod.ended() => {}
        _ = terminate.recv() => info!(log, "told to terminate"),
        _ = interrupt.recv() => info!(log, "told to terminate"),
        () = async { unused.await; std::future::pending().await } => {}
    }
    // From here on containerd finds no shim behind this name.
    let _ = std::fs::remove_file(&socket);
    pod.end().await;
    events.flush(LAST_EVENTS).await;
    let _ = server.shutdown().await;
    forwarding.abort();
    info!(log, "shim ends");
    Ok(())
}

/// The methods of a service under another name.
fn named(services: HashMap<String, Methods>, name: &str) -> HashMap<String, Methods> {
    services.into_values().map(|methods| (name.to_owned(), methods)).collect()
}
