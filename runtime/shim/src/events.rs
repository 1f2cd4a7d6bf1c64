//! Events for containerd: each published once, in the order in which they happened.
//!
//! Publishing only puts an event into a queue; one task forwards them. While containerd is away (it restarts, for
//! example) the events wait, and the first one is tried again until it is taken.

use std::time::Duration;

use containerd_shim::event::Event as Topic;
use containerd_shim_protos::events::task as wire;
use containerd_shim_protos::protobuf::MessageDyn;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use slog::{Logger, warn};
use tokio::sync::{mpsc, watch};
use ttrpc::context;

/// More events than this are only waiting when containerd is away for long; later ones are dropped then. On its
/// return it asks for the state of each task and does not depend on them.
const QUEUE: usize = 1024;
/// Between two tries while containerd is away, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long containerd may take to take one event.
const FORWARD_DEADLINE: Duration = Duration::from_secs(10);

/// Takes events.
#[derive(Debug, Clone)]
pub struct Publisher {
    namespace: String,
    queue: mpsc::Sender<Envelope>,
    /// How many events wait or are on their way.
    pending: watch::Sender<usize>,
    log: Logger,
}

/// The events on their way to containerd.
#[derive(Debug)]
pub struct Waiting {
    queue: mpsc::Receiver<Envelope>,
    pending: watch::Sender<usize>,
}

impl Publisher {
    /// A publisher for a namespace, and the queue it fills.
    pub fn new(namespace: &str, log: Logger) -> (Self, Waiting) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let pending = watch::Sender::new(0);
        let waiting = Waiting { queue: waiting, pending: pending.clone() };
        (Self { namespace: namespace.into(), queue, pending, log }, waiting)
    }

    /// Publishes an event after all earlier ones.
    pub fn publish<E: Topic + MessageDyn>(&self, event: E) {
        let topic = event.topic();
        match self.envelope(topic.clone(), Box::new(event)) {
            Ok(envelope) => {
                self.pending.send_modify(|pending| *pending += 1);
                if self.queue.try_send(envelope).is_err() {
                    self.pending.send_modify(|pending| *pending -= 1);
                    warn!(self.log, "event dropped"; "topic" => topic);
                }
            }
            Err(error) => warn!(self.log, "event lost"; "topic" => topic, "error" => %error),
        }
    }

    /// Waits until containerd has all events, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let mut pending = self.pending.subscribe();
        let _ = tokio::time::timeout(limit, pending.wait_for(|pending| *pending == 0)).await;
    }

    fn envelope(&self, topic: String, event: Box<dyn MessageDyn>) -> containerd_shim::Result<Envelope> {
        Ok(Envelope {
            timestamp: Some(containerd_shim::util::timestamp()?).into(),
            namespace: self.namespace.clone(),
            topic,
            event: Some(containerd_shim::util::convert_to_any(event)?).into(),
            ..Default::default()
        })
    }
}

impl Waiting {
    /// Forwards events to containerd's ttrpc socket until all publishers are gone.
    pub async fn forward(mut self, address: String, log: Logger) {
        let mut connection = None;
        while let Some(envelope) = self.queue.recv().await {
            let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
            let mut pause = FIRST_PAUSE;
            while let Err(error) = forward_once(&mut connection, &address, &request).await {
                warn!(log, "event waits for containerd"; "topic" => &request.envelope.topic, "error" => %error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.pending.send_modify(|pending| *pending -= 1);
        }
    }

    /// The next event.
    #[cfg(test)]
    pub async fn next(&mut self) -> Option<Envelope> {
        self.queue.recv().await
    }

    /// The next event if one is there.
    #[cfg(test)]
    pub fn try_next(&mut self) -> Option<Envelope> {
        self.queue.try_recv().ok()
    }
}

/// One try. An event that containerd refuses is not tried again: it would be refused for ever.
async fn forward_once(
    connection: &mut Option<EventsClient>,
    address: &str,
    request: &ForwardRequest,
) -> ttrpc::Result<()> {
    let client = match connection {
        Some(client) => client,
        None => {
            let address = match address.strip_prefix("unix://") {
                Some(_) => address.to_owned(),
                None => format!("unix://{address}"),
            };
            connection.insert(EventsClient::new(Client::connect(&address).await?))
        }
    };
    match client.forward(context::with_duration(FORWARD_DEADLINE), request).await {
        Ok(_) | Err(ttrpc::Error::RpcStatus(_)) => Ok(()),
        Err(error) => {
            *connection = None;
            Err(error)
        }
    }
}

/// The events' types, as containerd names them.
pub use wire::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};

#[cfg(test)]
mod tests;
