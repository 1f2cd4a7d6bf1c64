//! The network device (virtio 1.2, 5.1) over a tap: one pair of queues, checksums and TCP segmentation left to
//! whoever does it last.
//!
//! A guest may send from any MAC address, as a process with a raw socket in a network namespace may.

mod header;
mod receive;
mod tap;
mod transmit;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU,
};
use vmm_sys_util::epoll::EventSet;

use crate::event_loop::Poller;
use crate::fault::Fault;
use crate::transport::{self, Identity};
use crate::worker::{Activation, Backend, FIRST_OWN_TOKEN, Progress};
use crate::{Device, Wiring};
use receive::Receiver;
use transmit::Transmitter;

const IDENTITY: Identity = Identity {
    device_id: VIRTIO_ID_NET,
    // Receive buffers that can be merged are small: without them a driver of segments pins 64 KiB for each.
    features: 1 << VIRTIO_NET_F_CSUM
        | 1 << VIRTIO_NET_F_GUEST_CSUM
        | 1 << VIRTIO_NET_F_GUEST_TSO4
        | 1 << VIRTIO_NET_F_GUEST_TSO6
        | 1 << VIRTIO_NET_F_HOST_TSO4
        | 1 << VIRTIO_NET_F_HOST_TSO6
        | 1 << VIRTIO_NET_F_MAC
        | 1 << VIRTIO_NET_F_MRG_RXBUF
        | 1 << VIRTIO_NET_F_MTU,
    queue_sizes: &[256, 256],
};
const TAP: u32 = FIRST_OWN_TOKEN;

/// A network interface.
#[derive(Debug)]
pub struct Config {
    /// A tap with `IFF_NO_PI | IFF_VNET_HDR`.
    pub tap: File,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub mtu: u16,
}

/// Makes a network interface. Sets the tap's header size and makes it non-blocking.
///
/// # Errors
/// The file isn't a tap, or the process is out of descriptors.
pub fn new(wiring: Wiring, config: Config) -> io::Result<Device> {
    tap::prepare(config.tap.as_fd())?;
    over(wiring, config, tap::set_offloads)
}

/// Makes a network interface over anything that keeps frames apart.
fn over(wiring: Wiring, config: Config, set_offloads: SetOffloads) -> io::Result<Device> {
    let Config { tap, mac, mtu } = config;
    let mut space = mac.to_vec();
    // status and max_virtqueue_pairs belong to features that are not offered.
    space.extend([0; 4]);
    space.extend(mtu.to_le_bytes());
    let interface = Interface { tap, mtu, set_offloads, directions: None };
    transport::assemble(wiring, &IDENTITY, space, |_, _| Ok(interface))
}

/// Tells the host which of the guest's features may be used in frames to it.
type SetOffloads = fn(BorrowedFd<'_>, u64) -> io::Result<()>;

struct Interface {
    tap: File,
    mtu: u16,
    set_offloads: SetOffloads,
    directions: Option<(Receiver, Transmitter)>,
}

impl Backend for Interface {
    fn activate(&mut self, activation: Activation, poller: Poller<'_>) -> Result<(), Fault> {
        let Activation { queues, features } = activation;
        (self.set_offloads)(self.tap.as_fd(), features)?;
        let mut queues = queues.into_iter();
        self.directions = queues
            .next()
            .zip(queues.next())
            .map(|(rx, tx)| (Receiver::new(rx, features, self.mtu), Transmitter::new(tx, features)));
        // Edges: each direction remembers whether it can go on, so that a full ring is not a busy loop.
        poller.add(&self.tap, TAP, EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED)?;
        Ok(())
    }

    fn event(&mut self, _: u32, events: EventSet, _: Poller<'_>) -> Result<(), Fault> {
        if let Some((receiver, transmitter)) = &mut self.directions {
            if !events.difference(EventSet::OUT).is_empty() {
                receiver.tap_readable();
            }
            if !events.difference(EventSet::IN).is_empty() {
                transmitter.tap_writable();
            }
        }
        Ok(())
    }

    fn run(&mut self, _: Poller<'_>) -> Result<Progress, Fault> {
        let Some((receiver, transmitter)) = &mut self.directions else { return Ok(Progress::Idle) };
        let received = receiver.run(self.tap.as_fd())?;
        let sent = transmitter.run(self.tap.as_fd())?;
        Ok(if received == Progress::More || sent == Progress::More { Progress::More } else { Progress::Idle })
    }

    fn deactivate(&mut self, poller: Poller<'_>) {
        poller.remove(&self.tap);
        self.directions = None;
    }
}

/// An interface over a socket that keeps frames apart, as a tap does.
#[cfg(test)]
pub(crate) fn over_socket(wiring: Wiring, tap: File) -> Device {
    over(wiring, Config { tap, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }, |_, _| Ok(())).unwrap()
}

#[cfg(test)]
mod tests;
