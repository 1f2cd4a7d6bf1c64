//! A forwarded port.

use std::net::TcpStream;
use std::time::Instant;

use tungstenite::{Message, WebSocket};

use super::stream;
use crate::failure::{Failure, wrong};
use crate::wait::SECONDS;

const DATA: u8 = 0;
const ERROR: u8 = 1;

/// A connection to a port inside a pod. Each of its two channels begins with the port's number.
#[derive(Debug)]
pub struct Forward {
    socket: WebSocket<TcpStream>,
    port: u16,
    named: [bool; 2],
    received: Vec<u8>,
    error: Vec<u8>,
}

impl Forward {
    /// Opens what CRI's answer to PortForward leads to.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn open(url: &str, port: u16) -> Result<Self, Failure> {
        let socket = stream::open(url, "v4.channel.k8s.io")?;
        Ok(Self { socket, port, named: [false; 2], received: Vec::new(), error: Vec::new() })
    }

    /// Sends to the pod.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let message = Message::binary([&[DATA], bytes].concat());
        self.socket.send(message).map_err(Failure::other("can't write to the forwarded port"))
    }

    /// Reads until so many bytes have come.
    ///
    /// # Errors
    /// It ends before, or takes too long.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let end = Instant::now() + SECONDS;
        while self.received.len() < count {
            if !self.step(end)? || !self.error.is_empty() {
                let error = String::from_utf8_lossy(&self.error).into_owned();
                return wrong(format!("the forwarded port ended after {:?}: {error}", self.received));
            }
        }
        Ok(self.received.clone())
    }

    /// Reads until containerd says why there is no connection.
    ///
    /// # Errors
    /// It says nothing.
    pub fn error(mut self) -> Result<String, Failure> {
        let end = Instant::now() + SECONDS;
        while self.error.is_empty() {
            if !self.step(end)? {
                return wrong(format!("the forwarded port ended without an error: {:?}", self.received));
            }
        }
        Ok(String::from_utf8_lossy(&self.error).into_owned())
    }

    fn step(&mut self, end: Instant) -> Result<bool, Failure> {
        let Some(message) = stream::next(&mut self.socket, end)? else { return Ok(false) };
        let Some((&channel @ (DATA | ERROR), bytes)) = message.split_first() else { return Ok(true) };
        let named = &mut self.named[usize::from(channel)];
        if !*named {
            *named = true;
            if bytes != self.port.to_le_bytes() {
                return wrong(format!("channel {channel} is not for port {}: {bytes:?}", self.port));
            }
        } else if channel == DATA {
            self.received.extend_from_slice(bytes);
        } else {
            self.error.extend_from_slice(bytes);
        }
        Ok(true)
    }
}
