//! containerd's ends of streams: fifos, or files for output.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use super::StdioError;

/// A client opens its end before it asks for a process, but perhaps on a thread that has not come to it yet.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// Input: a fifo.
#[derive(Debug)]
pub struct Source {
    /// Its reading end.
    pub receiver: pipe::Receiver,
    /// A writing end.
    pub keeper: pipe::Sender,
}

impl Source {
    /// `None` for an empty path.
    ///
    /// # Errors
    /// It is no fifo, or can't be opened.
    pub fn open(path: &str) -> Result<Option<Self>, StdioError> {
        let Some(path) = local(path, &["fifo"])? else { return Ok(None) };
        let open = || -> io::Result<Self> {
            let receiver = pipe::OpenOptions::new().open_receiver(path)?;
            let keeper = pipe::OpenOptions::new().open_sender(path)?;
            Ok(Self { receiver, keeper })
        };
        open().map(Some).map_err(|source| StdioError::Open { path: path.into(), source })
    }
}

/// Output: a fifo or a file.
#[derive(Debug)]
pub enum Sink {
    /// A fifo.
    Fifo {
        /// Its writing end.
        sender: pipe::Sender,
        /// A reading end, so that a client that leaves (containerd restarts) and comes back finds the stream whole.
        _keeper: pipe::Receiver,
    },
    /// A file that is appended to.
    File(File),
}

impl Sink {
    /// `None` for an empty path.
    ///
    /// # Errors
    /// It can't be opened.
    pub async fn open(path: &str) -> Result<Option<Self>, StdioError> {
        let Some(path) = local(path, &["fifo", "file"])? else { return Ok(None) };
        let is_fifo = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let opened = if is_fifo { Self::open_fifo(path).await } else { Self::open_file(path) };
        opened.map(Some).map_err(|source| StdioError::Open { path: path.into(), source })
    }

    /// Waits for the client's end: what is written and closed before a reader has opened the fifo is lost.
    async fn open_fifo(path: &str) -> io::Result<Self> {
        let sender = match pipe::OpenOptions::new().open_sender(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => wait_for_reader(path).await?,
            other => other?,
        };
        let keeper = pipe::OpenOptions::new().open_receiver(path)?;
        Ok(Self::Fifo { sender, _keeper: keeper })
    }

    fn open_file(path: &str) -> io::Result<Self> {
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NOCTTY).open(path)?;
        Ok(Self::File(File::from_std(file)))
    }
}

/// Opens a fifo for writing on a thread, where the kernel waits for a reader.
async fn wait_for_reader(path: &str) -> io::Result<pipe::Sender> {
    let own = path.to_owned();
    let mut waiting = tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(own));
    let opened = match tokio::time::timeout(READER_PATIENCE, &mut waiting).await {
        Ok(opened) => opened,
        Err(_) => {
            // Nobody comes: a reader of our own lets the thread go.
            let _reader = pipe::OpenOptions::new().open_receiver(path)?;
            waiting.await
        }
    };
    pipe::Sender::from_file(opened.map_err(io::Error::other)??)
}

/// The path in `uri`, if its kind is one of `kinds`; a path alone is a fifo.
fn local<'a>(uri: &'a str, kinds: &[&str]) -> Result<Option<&'a str>, StdioError> {
    match uri.split_once("://") {
        _ if uri.is_empty() => Ok(None),
        None => Ok(Some(uri)),
        Some((kind, path)) if kinds.contains(&kind) => Ok(Some(path)),
        Some((kind, _)) => Err(StdioError::Scheme(kind.into())),
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Fifo { sender: fifo, .. } => Pin::new(fifo).poll_write(cx, bytes),
            Self::File(file) => Pin::new(file).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Fifo { sender: fifo, .. } => Pin::new(fifo).poll_flush(cx),
            Self::File(file) => Pin::new(file).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Fifo { sender: fifo, .. } => Pin::new(fifo).poll_shutdown(cx),
            Self::File(file) => Pin::new(file).poll_shutdown(cx),
        }
    }
}
