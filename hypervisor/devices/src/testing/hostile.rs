//! Guests that write anything anywhere, against every device: nothing they do ends the device's thread, and a reset
//! makes it work again.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{Driver, MEMORY, RINGS, run, wiring};
use crate::{Device, Wiring, block, console, net, rng, vsock};

/// One thing that a hostile guest does.
#[derive(Debug, Clone)]
enum Deed {
    /// A descriptor with mostly plausible contents.
    Descriptor {
        queue: usize,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    },
    /// Bytes where buffers and tables are.
    Bytes {
        address: u64,
        bytes: Vec<u8>,
    },
    /// Any byte of the rings.
    Ring {
        offset: u64,
        byte: u8,
    },
    /// A chain, at its regular place.
    Publish {
        queue: usize,
        head: u16,
    },
    Index {
        queue: usize,
        index: u16,
    },
    Bell {
        queue: usize,
    },
    Register {
        offset: u64,
        value: u32,
    },
    /// From the host's side.
    Frame(Vec<u8>),
    Restart,
}

const TABLE: u64 = 2 << 20;

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..64).prop_map(|page| TABLE + page * 4096),
        2 => TABLE..TABLE + 0x1_0000,
        1 => MEMORY - 4096..MEMORY + 4096,
        1 => any::<u64>(),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let length = prop_oneof![
        4 => prop::sample::select(vec![0u32, 1, 12, 16, 44, 512, 513, 4096, 65_562]),
        2 => 0u32..70_000,
        1 => any::<u32>(),
    ];
    let index = prop_oneof![8 => 0u16..16, 1 => any::<u16>()];
    let descriptor = (0usize..3, 0u16..16, address(), length, 0u16..8, index.clone()).prop_map(
        |(queue, index, address, length, flags, next)| Deed::Descriptor {
            queue,
            index,
            address,
            length,
            flags,
            next,
        },
    );
    prop_oneof![
        10 => descriptor,
        4 => (address(), prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0..64))
            .prop_map(|(address, bytes)| Deed::Bytes { address, bytes }),
        1 => (0u64..0x3_0000, any::<u8>()).prop_map(|(offset, byte)| Deed::Ring { offset, byte }),
        10 => (0usize..3, index.clone()).prop_map(|(queue, head)| Deed::Publish { queue, head }),
        1 => (0usize..3, any::<u16>()).prop_map(|(queue, index)| Deed::Index { queue, index }),
        8 => (0usize..3).prop_map(|queue| Deed::Bell { queue }),
        2 => (prop_oneof![0u64..0x200, any::<u64>()], any::<u32>())
            .prop_map(|(offset, value)| Deed::Register { offset, value }),
        2 => prop::collection::vec(any::<u8>(), 12..2000).prop_map(Deed::Frame),
        2 => Just(Deed::Restart),
    ]
}

fn carry_out(driver: &mut Driver, host: Option<&UnixDatagram>, deed: Deed) {
    match deed {
        Deed::Descriptor { queue, index, address, length, flags, next } => {
            if let Some(ring) = driver.rings.get(queue) {
                ring.write_descriptor(index, address, length, flags, next);
            }
        }
        // Beyond memory there is nothing that a guest could write to.
        Deed::Bytes { address, bytes } => drop(driver.memory.write_slice(&bytes, GuestAddress(address))),
        Deed::Ring { offset, byte } => driver.memory.write_obj(byte, GuestAddress(RINGS + offset)).unwrap(),
        Deed::Publish { queue, head } => {
            if let Some(ring) = driver.rings.get_mut(queue) {
                ring.publish(head);
            }
        }
        Deed::Index { queue, index } => {
            if let Some(ring) = driver.rings.get_mut(queue) {
                ring.set_available_index(index);
            }
        }
        Deed::Bell { queue } => driver.ring_bell(queue),
        Deed::Register { offset, value } => driver.write(offset, value),
        Deed::Frame(bytes) => {
            if let Some(host) = host {
                // Nobody may be reading.
                let _ = host.send(&bytes);
            }
        }
        Deed::Restart => driver.start(0),
    }
}

fn survives(device: fn(Wiring) -> (Device, Option<UnixDatagram>), deeds: Vec<Deed>) {
    let (wiring, interrupt, memory) = wiring();
    let (device, host) = device(wiring);
    let mut driver = run(device, interrupt, memory);
    driver.start(0);
    for deed in deeds {
        carry_out(&mut driver, host.as_ref(), deed);
    }
    driver.start(0);
}

fn disk(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let backing = block::Backing::File { file, read_only: false };
    (block::new(wiring, backing, "").unwrap().0, None)
}

fn layers(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(5000).unwrap();
    let files = vec![file.try_clone().unwrap(), file];
    (block::new(wiring, block::Backing::Extents(files), "").unwrap().0, None)
}

fn interface(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (net::over_socket(wiring, File::from(OwnedFd::from(theirs))), Some(ours))
}

fn sockets(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let guest_cid = vsock::GuestCid::try_from(3).unwrap();
    let events = Box::new(drop);
    let config = vsock::Config { guest_cid, listener, host_ports: vec![0, 1], events };
    (vsock::new(wiring, config).unwrap(), None)
}

fn entropy(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    (rng::new(wiring).unwrap(), None)
}

fn terminal(wiring: Wiring) -> (Device, Option<UnixDatagram>) {
    (console::new(wiring, None).unwrap().0, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_guest_leaves_a_device_that_can_be_reset(deeds in prop::collection::vec(deed(), 1..120)) {
        for device in [disk, layers, interface, sockets, entropy, terminal] {
            survives(device, deeds.clone());
        }
    }
}
