use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::shim_async::{Events, create_events};
use slog::{Discard, o};
use ttrpc::asynchronous::{Server, TtrpcContext};

use super::*;

#[derive(Default)]
struct Containerd {
    topics: Mutex<Vec<String>>,
}

#[async_trait]
impl Events for Containerd {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.topics.lock().unwrap().push(request.envelope.topic.clone());
        Ok(Empty::new())
    }
}

#[tokio::test]
async fn events_wait_for_containerd_and_arrive_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("events.sock").to_str().unwrap().to_owned();
    let log = Logger::root(Discard, o!());
    let (publisher, waiting) = Publisher::new("default", log.clone());
    let forwarding = tokio::spawn(waiting.forward(socket.clone(), log));

    publisher.publish(TaskCreate::new());
    publisher.publish(TaskStart::new());
    publisher.publish(TaskExit::new());
    publisher.flush(Duration::from_millis(20)).await;

    let containerd = Arc::new(Containerd::default());
    let mut server = Server::new().bind(&format!("unix://{socket}")).unwrap();
    server = server.register_service(create_events(containerd.clone()));
    server.start().await.unwrap();
    publisher.flush(Duration::from_secs(10)).await;

    assert_eq!(*containerd.topics.lock().unwrap(), ["/tasks/create", "/tasks/start", "/tasks/exit"]);
    drop(publisher);
    forwarding.await.unwrap();
}
