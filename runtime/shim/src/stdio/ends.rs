//! containerd's ends of streams: fifos, or files for output.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::fs::File;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use super::StdioError;

/// Input: a fifo.
#[derive(Debug)]
pub struct Source {
    /// Its reading end.
    pub receiver: pipe::Receiver,
    /// A writing end, so that a client that leaves does not close it: that is what CloseIO is for.
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
    Fifo(pipe::Sender),
    /// A file that is appended to.
    File(File),
}

impl Sink {
    /// `None` for an empty path.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: &str) -> Result<Option<Self>, StdioError> {
        let Some(path) = local(path, &["fifo", "file"])? else { return Ok(None) };
        let open = || -> io::Result<Self> {
            let is_fifo = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
            if is_fifo {
                // Read and write: a reader that leaves (containerd restarts) and comes back finds the stream whole.
                Ok(Self::Fifo(pipe::OpenOptions::new().read_write(true).open_sender(path)?))
            } else {
                if let Some(folder) = Path::new(path).parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let file =
                    OpenOptions::new().append(true).create(true).custom_flags(libc::O_NOCTTY).open(path)?;
                Ok(Self::File(File::from_std(file)))
            }
        };
        open().map(Some).map_err(|source| StdioError::Open { path: path.into(), source })
    }
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
            Self::Fifo(fifo) => Pin::new(fifo).poll_write(cx, bytes),
            Self::File(file) => Pin::new(file).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Fifo(fifo) => Pin::new(fifo).poll_flush(cx),
            Self::File(file) => Pin::new(file).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Fifo(fifo) => Pin::new(fifo).poll_shutdown(cx),
            Self::File(file) => Pin::new(file).poll_shutdown(cx),
        }
    }
}
