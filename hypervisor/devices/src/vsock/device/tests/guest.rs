use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::testing::{Buffer, Driver, run, wiring};
use crate::vsock::packet::{HEADER_SIZE, HOST_CID, Header, Operation, TYPE_STREAM};
use crate::vsock::{Config, Event, GuestCid, new};

pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;
pub const CID: u64 = 3;
pub const READY_PORT: u32 = 1024;
/// The buffer that the guest says it has for each stream.
pub const BUFFER: u32 = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Guest {
    pub driver: Driver,
    pub events: Receiver<Event>,
    folder: tempfile::TempDir,
}

impl Guest {
    /// With all receive buffers in place.
    pub fn start() -> Self {
        let mut guest = Self::without_buffers();
        for _ in 0..guest.driver.rings[RECEIVE].size {
            guest.add_buffer();
        }
        guest.driver.ring_bell(RECEIVE);
        guest
    }

    pub fn without_buffers() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("vsock.sock")).unwrap();
        let (sender, events) = channel();
        let (wiring, interrupt, memory) = wiring();
        let config = Config {
            guest_cid: GuestCid::try_from(3).unwrap(),
            listener,
            host_ports: vec![READY_PORT],
            events: Box::new(move |event| drop(sender.send(event))),
        };
        let mut driver = run(new(wiring, config).unwrap(), interrupt, memory);
        driver.start(0);
        Self { driver, events, folder }
    }

    pub fn add_buffer(&mut self) {
        self.driver.rings[RECEIVE].add(&[Buffer::In(4096)]);
    }

    /// A header to the host, with plenty of credit.
    pub fn header(operation: Operation, guest: u32, host: u32) -> Header {
        Header {
            source_cid: CID,
            destination_cid: HOST_CID,
            source_port: guest,
            destination_port: host,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags: 0,
            buffer: BUFFER,
            forwarded: 0,
        }
    }

    pub fn send(&mut self, header: Header) {
        self.send_with(header, &[]);
    }

    /// Sends without waiting for the chain to come back.
    pub fn post(&mut self, header: Header, payload: &[u8]) {
        let mut bytes = header.to_bytes();
        bytes.extend(payload);
        self.driver.send(TRANSMIT, &[Buffer::Out(bytes)]);
    }

    pub fn send_with(&mut self, mut header: Header, payload: &[u8]) {
        header.length = u32::try_from(payload.len()).unwrap();
        self.post(header, payload);
        self.driver.wait_used(TRANSMIT);
    }

    pub fn data(&mut self, guest: u32, host: u32, payload: &[u8]) {
        self.send_with(Self::header(Operation::Data, guest, host), payload);
    }

    pub fn shutdown(&mut self, guest: u32, host: u32, flags: u32) {
        self.send(Header { flags, ..Self::header(Operation::Shutdown, guest, host) });
    }

    /// The next packet, whose buffer is given back.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let (_, mut bytes) = self.driver.wait_used(RECEIVE);
        self.add_buffer();
        if self.driver.rings[RECEIVE].wants_bell(1) {
            self.driver.ring_bell(RECEIVE);
        }
        let payload = bytes.split_off(HEADER_SIZE);
        let header = Header::parse(bytes.as_slice().try_into().unwrap());
        assert_eq!(payload.len(), usize::try_from(header.length).unwrap());
        (header, payload)
    }

    /// The next packet, which must be this one.
    pub fn expect(&mut self, operation: Operation) -> Header {
        let (header, _) = self.receive();
        assert_eq!(header.operation, Some(operation), "{header:?}");
        header
    }

    /// True if the device has nothing more for the guest.
    pub fn is_silent(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(50));
        self.driver.rings[RECEIVE].take_used().is_none()
    }

    pub fn host(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("vsock.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A stream from the host to `port`, with the host's end and port.
    pub fn connect_from_host(&mut self, port: u32) -> (UnixStream, u32) {
        let mut stream = self.host();
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        let request = self.expect(Operation::Request);
        assert_eq!((request.source_cid, request.destination_cid), (HOST_CID, CID));
        assert_eq!(request.destination_port, port);
        let host = request.source_port;
        self.send(Self::header(Operation::Response, port, host));
        assert_eq!(read_line(&stream), format!("OK {host}\n"));
        (stream, host)
    }

    /// A stream from the guest to the port where it is awaited.
    pub fn connect_to_host(&mut self, guest: u32) -> UnixStream {
        self.send(Self::header(Operation::Request, guest, READY_PORT));
        self.expect(Operation::Response);
        loop {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                Event::FirstPacket => {}
                Event::Connected { port, stream } => {
                    assert_eq!(port, READY_PORT);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
            }
        }
    }
}

/// A line, of which nothing behind the end is read.
pub fn read_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
    line
}
