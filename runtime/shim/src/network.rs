//! A pod's network: what CNI made in the pod's network namespace, carried into the VM.
//!
//! Each interface of the namespace gets a tap beside it, and traffic control passes every frame between the two.
//! The guest's interface takes over MAC, addresses and routes, so for the rest of the network the VM is what CNI
//! set up. A tap goes when its last descriptor is closed; [`disconnect`] takes away the rest.

mod describe;
mod forward;
mod guest;
mod redirect;
mod tap;
mod unsafe_bpf;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

pub use forward::Forwarder;
pub use guest::GuestNetwork;

use describe::{interface_message, neighbour_messages, route_messages};

const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// The most interfaces that a pod can have: each is a device of its VM.
pub const MAX_INTERFACES: usize = 8;

/// Why a pod's network could not be carried into its VM.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace of the host itself: its interfaces are not ours to redirect.
    #[error(
        "the network namespace {0} is the host's own: a pod in a virtual machine can't use the host's network"
    )]
    HostNamespace(PathBuf),
    /// The namespace could not be opened or entered.
    #[error("the network namespace {path} can't be entered")]
    Enter {
        /// Its path in the OCI spec.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than a VM has devices for.
    #[error("the pod has {0} network interfaces, and a virtual machine takes at most {MAX_INTERFACES}")]
    TooMany(usize),
    /// The tap could not be made.
    #[error("a tap for the interface {interface} can't be made (is the kernel module tun there?)")]
    Tap {
        /// The pod's interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The interface has no MAC address of six bytes.
    #[error("the interface {0} is not an Ethernet interface, which is all that a virtual machine can have")]
    NotEthernet(String),
    /// The kernel refused a netlink request.
    #[error("{what} failed")]
    Netlink {
        /// What was asked of it.
        what: String,
        /// Its answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// The kernel does not lead localhost's connections to the guest.
    #[error("localhost of the pod can't be reached from the host (Linux 5.9 with BPF can do that)")]
    Forward(#[source] io::Error),
    /// The thread that works in the namespace could not be started or died.
    #[error("the thread for the network namespace failed")]
    Thread(#[source] io::Error),
}

fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { what: what.into(), source: Box::new(source) }
}

/// An interface of the pod, with the tap that leads to it.
#[derive(Debug)]
pub struct Interface {
    /// What the guest takes over.
    pub link: Link,
    /// The opened tap.
    pub tap: OwnedFd,
}

/// An interface as CNI made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// As in the pod's namespace, and in the guest.
    pub name: String,
    /// Its index in the pod's namespace.
    pub index: u32,
    /// Also the guest's.
    pub mac: [u8; 6],
    /// In bytes.
    pub mtu: u32,
    /// Addresses with their prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Without ARP, as ptp interfaces of some plugins are.
    pub no_arp: bool,
}

/// A route of the pod's main table that CNI set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The interface's name.
    pub device: String,
    /// The destination with its prefix length; absent for the default route.
    pub destination: Option<(IpAddr, u8)>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// `rtm_scope`
    pub scope: u8,
    /// `rtm_flags`
    pub flags: u32,
    /// The route's own MTU.
    pub mtu: Option<u32>,
    /// Whether this is IPv6, which a default route does not tell otherwise.
    pub ipv6: bool,
}

/// A permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's name.
    pub device: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Vec<u8>,
}

/// All of a pod's network.
#[derive(Debug, Default)]
pub struct PodNetwork {
    /// Without the loopback interface, in the order of their indexes.
    pub interfaces: Vec<Interface>,
    /// Routes that the kernel does not make by itself.
    pub routes: Vec<Route>,
    /// Permanent ones only.
    pub neighbours: Vec<Neighbour>,
}

/// Makes a tap for each interface of the namespace at `path` and joins the two.
///
/// # Errors
/// See [`NetworkError`]. What was made until then is taken away again.
pub async fn connect(path: &Path) -> Result<PodNetwork, NetworkError> {
    refuse_host(path)?;
    inside(path, async || {
        let handle = netlink_socket()?;
        let links = describe::links(&handle).await?;
        let routes = describe::routes(&handle, &links).await?;
        let neighbours = describe::neighbours(&handle, &links).await?;
        let mut interfaces = Vec::with_capacity(links.len());
        for link in links {
            match redirect::join(&handle, &link).await {
                Ok(tap) => interfaces.push(Interface { link, tap }),
                Err(error) => {
                    for index in interfaces.iter().map(|done| done.link.index).chain([link.index]) {
                        redirect::part(&handle, index).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(PodNetwork { interfaces, routes, neighbours })
    })
    .await
}

/// Takes the redirection off the interfaces with these indexes. The namespace or an interface that is gone
/// already is no error: nothing is left there.
///
/// # Errors
/// The namespace is there, but can't be entered.
pub async fn disconnect(path: &Path, indexes: Vec<u32>) -> Result<(), NetworkError> {
    if !path.exists() || indexes.is_empty() {
        return Ok(());
    }
    inside(path, async || {
        let handle = netlink_socket()?;
        for index in indexes {
            redirect::part(&handle, index).await;
        }
        Ok(())
    })
    .await
}

fn refuse_host(path: &Path) -> Result<(), NetworkError> {
    let enter = |source: nix::Error| NetworkError::Enter { path: path.to_owned(), source: source.into() };
    // The shim stays in the namespace of containerd, which is the host's.
    let host = nix::sys::stat::stat(OWN_NAMESPACE).map_err(enter)?;
    let asked = nix::sys::stat::stat(path).map_err(enter)?;
    if (host.st_dev, host.st_ino) == (asked.st_dev, asked.st_ino) {
        return Err(NetworkError::HostNamespace(path.to_owned()));
    }
    Ok(())
}

/// Runs `work` on a thread of its own that has entered the namespace: a namespace belongs to a thread, and those
/// of the shim's runtime must stay where they are.
async fn inside<T, F>(path: &Path, work: F) -> Result<T, NetworkError>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> Result<T, NetworkError> + Send + 'static,
{
    let path = path.to_owned();
    let (answer, result) = oneshot::channel();
    let run = move || -> Result<T, NetworkError> {
        let enter = |source: io::Error| NetworkError::Enter { path: path.clone(), source };
        let namespace = std::fs::File::open(&path).map_err(enter)?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| enter(errno.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_io().build().map_err(NetworkError::Thread)?;
        runtime.block_on(work())
    };
    std::thread::Builder::new()
        .name("pod-network".into())
        .spawn(move || answer.send(run()))
        .map_err(NetworkError::Thread)?;
    result.await.unwrap_or_else(|_| Err(NetworkError::Thread(io::Error::other("it ended without an answer"))))
}

fn netlink_socket() -> Result<rtnetlink::Handle, NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Thread)?;
    // Ends with the runtime of the namespace's thread.
    tokio::spawn(connection);
    Ok(handle)
}

#[cfg(test)]
mod tests;
