//! Streams of exec and attach: a WebSocket to containerd's streaming server, with a channel for each stream.
//!
//! Both containerd 1.7 and 2.1 serve `v4.channel.k8s.io`: the first byte of each message is its channel.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

use crate::failure::{Failure, wrong};
use crate::wait::SECONDS;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;

/// A WebSocket to containerd's streaming server, for a URL that CRI gave.
///
/// # Errors
/// It is not there or does not speak the protocol.
pub(super) fn open(url: &str, protocol: &'static str) -> Result<WebSocket<TcpStream>, Failure> {
    let url = url.replacen("http://", "ws://", 1);
    let mut request = url.as_str().into_client_request().map_err(Failure::other(url.clone()))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let socket = TcpStream::connect(&authority).map_err(Failure::io(format!("can't reach {authority}")))?;
    // A look at the clock now and then; the data itself wakes the reader.
    socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(Failure::io("no timeout"))?;
    socket.set_nodelay(true).map_err(Failure::io("no TCP_NODELAY"))?;
    let mut attempt = tungstenite::client(request, socket);
    loop {
        match attempt {
            Ok((socket, _)) => return Ok(socket),
            Err(tungstenite::HandshakeError::Interrupted(middle)) => attempt = middle.handshake(),
            Err(tungstenite::HandshakeError::Failure(why)) => return Err(Failure::other(url)(why)),
        }
    }
}

/// The next binary message; none when the other side has closed.
///
/// # Errors
/// Nothing comes until `end`, or the connection breaks.
pub(super) fn next(socket: &mut WebSocket<TcpStream>, end: Instant) -> Result<Option<Vec<u8>>, Failure> {
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => return Ok(Some(bytes.to_vec())),
            Ok(Message::Text(text)) => return Ok(Some(text.as_bytes().to_vec())),
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(None),
            // containerd closes the connection without a word once all streams have ended.
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return Ok(None);
            }
            Ok(_) => {}
            Err(Error::Io(why))
                if matches!(why.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                if Instant::now() > end {
                    return wrong("nothing came on the stream in time");
                }
            }
            Err(why) => return Err(Failure::other("the stream broke")(why)),
        }
    }
}

/// The streams of a process.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<Value>,
}

impl Stream {
    /// Opens what CRI's answer to Exec or Attach leads to.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn open(url: &str) -> Result<Self, Failure> {
        let socket = open(url, "v4.channel.k8s.io")?;
        Ok(Self { socket, stdout: Vec::new(), stderr: Vec::new(), status: None })
    }

    /// Writes to the process's standard input.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.send(STDIN, bytes)
    }

    /// Changes the size of the process's terminal.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<(), Failure> {
        self.send(RESIZE, format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes())
    }

    fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Failure> {
        let message = [&[channel], bytes].concat();
        self.socket.send(Message::binary(message)).map_err(Failure::other("can't write to the stream"))
    }

    /// What came on standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What came on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Bytes that came on standard output so far.
    pub fn received(&self) -> &[u8] {
        &self.stdout
    }

    /// Reads until standard output has this part.
    ///
    /// # Errors
    /// It ends without, or takes too long.
    pub fn wait_for(&mut self, part: &str) -> Result<(), Failure> {
        let end = Instant::now() + SECONDS;
        while !self.stdout().contains(part) {
            if !self.step(end)? {
                return wrong(format!("the stream ended without {part:?}: {:?}", self.stdout()));
            }
        }
        Ok(())
    }

    /// Reads to the end; the process's exit status.
    ///
    /// # Errors
    /// It takes longer than `limit`, or the status is not told.
    pub fn finish(&mut self, limit: Duration) -> Result<i64, Failure> {
        let end = Instant::now() + limit;
        while self.step(end)? {}
        let Some(status) = &self.status else {
            return wrong(format!("the stream ended without a status; stdout {:?}", self.stdout()));
        };
        if status.get("status").and_then(Value::as_str) == Some("Success") {
            return Ok(0);
        }
        let causes = status.pointer("/details/causes").and_then(Value::as_array);
        let code = causes.into_iter().flatten().find_map(|cause| {
            (cause.get("reason")? == "ExitCode").then(|| cause.get("message")?.as_str()?.parse().ok())?
        });
        code.ok_or_else(|| Failure::Wrong(format!("the stream's status has no exit code: {status}")))
    }

    /// Takes one message; false at the end.
    fn step(&mut self, end: Instant) -> Result<bool, Failure> {
        let Some(message) = next(&mut self.socket, end)? else { return Ok(false) };
        match message.split_first() {
            Some((&STDOUT, bytes)) => self.stdout.extend_from_slice(bytes),
            Some((&STDERR, bytes)) => self.stderr.extend_from_slice(bytes),
            Some((&STATUS, bytes)) if !bytes.is_empty() => {
                let status = serde_json::from_slice(bytes);
                self.status = Some(status.map_err(Failure::other("the stream's status is no JSON"))?);
            }
            _ => {}
        }
        Ok(true)
    }

    /// Leaves the process alone, without a word of farewell.
    pub fn detach(self) {
        drop(self);
    }
}
