//! The client of containerd's CRI service, as kubelet has one.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ImageSpec, ImageStatusRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter, VersionRequest,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::traces::Traces;
use crate::context::Context;
use crate::failure::{Failure, check, wrong};
use crate::wait::{SECONDS, eventually};

/// How long a call may take on an emulated node.
pub const LIMIT: Duration = Duration::from_secs(240);

/// The label that says which test a pod belongs to.
pub const LABEL: &str = "nacre.test/test";

/// The generated client.
pub type Client = RuntimeServiceClient<Channel>;

/// containerd through CRI.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
    client: Client,
    /// The runtime handler under test.
    pub handler: String,
    /// What this test leaves on the node, to be removed after it.
    pub traces: Traces,
    test: String,
}

impl Cri {
    /// For the tests of a context.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn connect(context: &Context) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::io("can't start tokio"))?;
        let path = std::env::var("CONTAINERD_ADDRESS")
            .unwrap_or_else(|_| "/run/containerd/containerd.sock".to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // Nobody resolves the name: the connector knows its socket. Connects again after containerd's restart.
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector)
        };
        let client = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(32 << 20);
        let handler = handler(&context.options.runtime).to_owned();
        let traces = Traces::of(context.test());
        Ok(Self { runtime, channel, client, handler, traces, test: context.test().to_owned() })
    }

    /// Makes a call.
    ///
    /// # Errors
    /// [`Failure::Refused`], or it takes longer than [`LIMIT`].
    pub fn call<T>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let work = async { tokio::time::timeout(LIMIT, call(self.client.clone())).await };
        match self.runtime.block_on(work) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(source)) => Err(Failure::Refused { what: what.to_owned(), source: Box::new(source) }),
            Err(_) => wrong(format!("{what}: no answer within {} s", LIMIT.as_secs())),
        }
    }

    /// Makes a call, and goes away without its answer, as a kubelet that is killed does.
    pub fn abandon<T>(&self, after: Duration, call: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>) {
        let _ = self.runtime.block_on(async { tokio::time::timeout(after, call(self.client.clone())).await });
    }

    /// containerd's version, for instance `1.7.24`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn version(&self) -> Result<String, Failure> {
        let request = VersionRequest::default();
        let answer = self.call("Version", async |mut client| client.version(request).await)?;
        let version = answer.runtime_version.trim_start_matches('v');
        Ok(version.split(['~', '+', '-']).next().unwrap_or(version).to_owned())
    }

    /// Fails with a reason unless containerd is at least of this major version.
    ///
    /// # Errors
    /// It is older.
    pub fn need_major(&self, major: u32, what: &str) -> Result<(), Failure> {
        let version = self.version()?;
        let found = version.split('.').next().and_then(|part| part.parse::<u32>().ok());
        if found.is_some_and(|found| found >= major) {
            return Ok(());
        }
        Err(Failure::CannotRun(format!("containerd {version} has no {what}")))
    }

    /// Waits until containerd's CRI plugin knows an image that was just imported: it learns of it by an event.
    ///
    /// # Errors
    /// It doesn't learn of it.
    pub fn image_is_there(&self, image: &str) -> Result<(), Failure> {
        eventually(SECONDS, || {
            let spec = ImageSpec { image: image.to_owned(), ..Default::default() };
            let request = ImageStatusRequest { image: Some(spec), verbose: false };
            let mut images = ImageServiceClient::new(self.channel.clone());
            let answer = self.call("ImageStatus", async |_| images.image_status(request).await)?;
            check(answer.image.is_some(), || format!("CRI has no image {image}"))
        })
    }

    /// The name of the test, which its pods carry as a label.
    pub fn test(&self) -> &str {
        &self.test
    }

    /// The pods of this test.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn pods(&self) -> Result<Vec<PodSandbox>, Failure> {
        let label_selector = [(LABEL.to_owned(), self.test.clone())].into();
        self.pods_like(PodSandboxFilter { label_selector, ..Default::default() })
    }

    /// The pods that a filter lets through.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn pods_like(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>, Failure> {
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.call("ListPodSandbox", async |mut client| client.list_pod_sandbox(request).await)?.items)
    }
}

/// The handler's name in containerd's configuration for a runtime's type: `nacre` for `io.containerd.nacre.v2`.
fn handler(runtime: &str) -> &str {
    runtime.split('.').nth(2).unwrap_or(runtime)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_runtimes_handler_has_its_short_name() {
        assert_eq!(super::handler("io.containerd.nacre.v2"), "nacre");
        assert_eq!(super::handler("runc"), "runc");
    }
}
