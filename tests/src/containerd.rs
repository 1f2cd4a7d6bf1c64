//! What of containerd's API `ctr` has no command for: changing a container's specification before it starts, changing
//! the resources of a running one, and a process whose specification is not the container's.
//!
//! gRPC over HTTP/2, with messages of a few fields each, encoded here.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::failure::{Failure, check, wrong};
use crate::options::Options;

const SPECIFICATION: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const LIMIT: Duration = Duration::from_secs(60);

/// Replaces the specification of a container by that in `record`, which has the form of `ctr container info`.
///
/// # Errors
/// containerd refuses it.
pub fn update_specification(options: &Options, id: &str, record: &Value) -> Result<(), Failure> {
    let specification = record.get("Spec").unwrap_or(&Value::Null).to_string();
    let mut container = Message::default();
    container.text(1, id).message(5, &any(SPECIFICATION, &specification));
    let mut mask = Message::default();
    mask.text(1, "spec");
    let mut request = Message::default();
    request.message(1, &container).message(2, &mask);
    call(options, "/containerd.services.containers.v1.Containers/Update", &request)
}

/// Changes the resources of a running container; `resources` has the form of the OCI specification.
///
/// # Errors
/// containerd or the runtime refuses it.
pub fn update_resources(options: &Options, id: &str, resources: &Value) -> Result<(), Failure> {
    let mut request = Message::default();
    request.text(1, id).message(2, &any(RESOURCES, &resources.to_string()));
    call(options, "/containerd.services.tasks.v1.Tasks/Update", &request)
}

/// Starts a process in a container; `process` has the form of the OCI specification. All of its output goes to one FIFO.
///
/// # Errors
/// containerd or the runtime refuses it.
pub fn exec(options: &Options, id: &str, name: &str, output: &str, process: &Value) -> Result<(), Failure> {
    let mut request = Message::default();
    request
        .text(1, id)
        .text(3, output)
        .text(4, output)
        .message(6, &any(PROCESS, &process.to_string()))
        .text(7, name);
    call(options, "/containerd.services.tasks.v1.Tasks/Exec", &request)?;
    let mut request = Message::default();
    request.text(1, id).text(2, name);
    call(options, "/containerd.services.tasks.v1.Tasks/Start", &request)
}

fn any(kind: &str, json: &str) -> Message {
    let mut message = Message::default();
    message.text(1, kind).text(2, json);
    message
}

/// A protobuf message under construction; all fields here are strings, bytes and messages.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, field: u8, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(&mut self, field: u8, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) -> &mut Self {
        const LENGTH_DELIMITED: u8 = 2;
        self.0.push(field << 3 | LENGTH_DELIMITED);
        let mut length = bytes.len();
        while length > 0x7f {
            self.0.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        self.0.push(length.to_le_bytes()[0]);
        self.0.extend_from_slice(bytes);
        self
    }
}

fn call(options: &Options, method: &str, request: &Message) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::io("can't start tokio"))?;
    let work = async { tokio::time::timeout(LIMIT, exchange(options, method, request)).await };
    match runtime.block_on(work) {
        Ok(result) => result,
        Err(_) => wrong(format!("containerd does not answer {method} within {} s", LIMIT.as_secs())),
    }
}

async fn exchange(options: &Options, method: &str, message: &Message) -> Result<(), Failure> {
    let failed = |what: &str| format!("{method}: {what}");
    let address =
        std::env::var("CONTAINERD_ADDRESS").unwrap_or_else(|_| "/run/containerd/containerd.sock".to_owned());
    let stream = UnixStream::connect(&address).await.map_err(Failure::io(failed(&address)))?;
    let (client, connection) =
        h2::client::handshake(stream).await.map_err(Failure::other(failed("no HTTP/2")))?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.map_err(Failure::other(failed("no HTTP/2")))?;

    let request = http::Request::post(format!("http://containerd{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("containerd-namespace", &options.namespace)
        .body(())
        .map_err(Failure::other(failed("request")))?;
    let (response, mut body) =
        client.send_request(request, false).map_err(Failure::other(failed("request")))?;
    let length = u32::try_from(message.0.len()).map_err(Failure::other(failed("message")))?;
    let frame = [&[0], &length.to_be_bytes()[..], &message.0].concat();
    body.send_data(Bytes::from(frame), true).map_err(Failure::other(failed("message")))?;

    let response = response.await.map_err(Failure::other(failed("response")))?;
    let early = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = poll_fn(|context| body.poll_data(context)).await {
        let data = data.map_err(Failure::other(failed("response")))?;
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(Failure::other(failed("response")))?.unwrap_or(early);
    connection.abort();
    let field = |name| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let status = field("grpc-status").unwrap_or_default();
    check(status == "0", || {
        failed(&format!("status {status}: {}", field("grpc-message").unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_number_length_and_bytes() {
        let mut message = Message::default();
        message.text(1, "ab").bytes(5, &[7; 200]);
        assert_eq!(message.0[..4], [0x0a, 2, b'a', b'b']);
        assert_eq!(message.0[4..8], [0x2a, 0xc8, 0x01, 7]);
        assert_eq!(message.0.len(), 4 + 3 + 200);
    }
}
