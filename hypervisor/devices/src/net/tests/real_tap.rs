//! Against a tap of the kernel, in a network namespace of the test's own.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, unshare};
use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE};

use super::{RECEIVE, TRANSMIT, give_buffers, receive};
use crate::net::{Config, new};
use crate::testing::{Buffer, run, wiring};

const HOST: [u8; 4] = [10, 99, 0, 1];
const GUEST: [u8; 4] = [10, 99, 0, 2];
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// An interface request with a name and what it is about.
fn request(name: &[u8], value: &[u8]) -> [u8; 40] {
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name);
    request[16..16 + value.len()].copy_from_slice(value);
    request
}

fn ioctl(fd: &impl AsRawFd, number: libc::Ioctl, request: &[u8; 40]) -> io::Result<()> {
    // SAFETY: all of these take a pointer to a `struct ifreq`, which is 40 bytes, and keep nothing.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, request.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A tap that is up and has the host's address. Moves the calling thread to a network namespace of its own.
fn tap() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap();
    ioctl(&tap, TUNSETIFF, &request(b"t0", &flags.to_le_bytes()))?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let family = u16::try_from(libc::AF_INET).unwrap().to_le_bytes();
    ioctl(&socket, libc::SIOCSIFADDR, &request(b"t0", &[&family[..], &[0, 0], &HOST].concat()))?;
    let up = u16::try_from(libc::IFF_UP).unwrap();
    ioctl(&socket, libc::SIOCSIFFLAGS, &request(b"t0", &up.to_le_bytes()))?;
    Ok(tap)
}

/// "Who has the host's address? Tell the guest."
/// Says that the running test can't run on this machine, past the test runner's capture; `cargo xtask test` counts
/// such a test as skipped.
fn not_run_here(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(io::stderr(), "NOT RUN HERE {}: {why}", test.name().unwrap_or("?"));
}

fn arp_request() -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST_MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend(GUEST);
    frame.extend([0; 6]);
    frame.extend(HOST);
    frame
}

#[test]
fn a_guest_and_the_hosts_kernel_talk_over_a_tap() {
    let tap = match tap() {
        Ok(tap) => tap,
        Err(error) => {
            not_run_here(&format!("no tap can be made: {error}"));
            return;
        }
    };
    let (wiring, interrupt, memory) = wiring();
    let mut driver = run(new(wiring, Config { tap, mac: GUEST_MAC, mtu: 1500 }).unwrap(), interrupt, memory);
    driver.start(0);
    give_buffers(&mut driver, 200, 1536);
    let header = vec![0; 12];
    driver.call(TRANSMIT, &[Buffer::Out(header), Buffer::Out(arp_request())]);
    // The kernel also speaks of its own accord.
    let reply = (0..50).map(|_| receive(&mut driver)).find(|frame| frame[12..14] == [8, 6]).unwrap();
    assert_eq!(reply[..6], GUEST_MAC);
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(reply[28..32], HOST);

    // A datagram of the host goes out with its checksum left to the guest, as the driver agreed to.
    let socket = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), 0)).unwrap();
    socket.send_to(&[1; 1400], (std::net::Ipv4Addr::from(GUEST), 9)).unwrap();
    loop {
        let (_, bytes) = driver.wait_used(RECEIVE);
        if bytes[24..26] == [8, 0] && bytes[12 + 14 + 9] == 17 {
            assert_eq!(u32::from(bytes[0]), VIRTIO_NET_HDR_F_NEEDS_CSUM);
            assert_eq!(u32::from(bytes[1]), VIRTIO_NET_HDR_GSO_NONE);
            assert_eq!(bytes[bytes.len() - 1400..], [1; 1400]);
            break;
        }
    }
}
