//! A client of the host's quoting service (Intel's TDX QGS): it turns a report, which only this host's processor can check,
//! into a quote, which everybody can.
//!
//! The format is that of `QuoteGeneration/quote_wrapper/qgs_msg_lib` in Intel's SGX DCAP sources: a length of four bytes, most
//! significant first, then a message of little-endian numbers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, connect, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// The size of a TDREPORT.
pub const REPORT_LEN: usize = 1024;
/// A quote has some 5 KiB; the guest's buffer has 128.
const LONGEST_ANSWER: usize = 128 << 10;
/// Linux's driver in the guest gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

const MAJOR: u16 = 1;
const REQUEST: u32 = 0;
const RESPONSE: u32 = 1;
const HEADER_LEN: usize = 16;

/// Who makes quotes of reports.
pub trait QuoteSource: Send + Sync + std::fmt::Debug {
    /// A quote of this report. It may take long.
    ///
    /// # Errors
    /// There is none.
    fn quote(&self, report: &[u8; REPORT_LEN]) -> Result<Vec<u8>, ServiceError>;
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nobody answers.
    #[error("the quoting service can't be reached")]
    Unreachable(#[source] Errno),
    /// It broke off, or took too long.
    #[error("the quoting service did not answer")]
    Broken(#[source] io::Error),
    /// The answer is none.
    #[error("the quoting service's answer is not one: {0}")]
    Answer(&'static str),
    /// It refused.
    #[error("the quoting service refused the report with error {0:#x}")]
    Refused(u32),
}

impl ServiceError {
    /// Whether the service is not there, which another time it may be.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_))
    }
}

/// Where the quoting service is.
#[derive(Debug)]
pub enum Service {
    /// A unix socket, opened as a path: nobody names it here.
    Socket(OwnedFd),
    /// An address on the virtual socket.
    Vsock {
        /// The context.
        cid: u32,
        /// The port.
        port: u32,
    },
}

impl Service {
    fn connect(&self) -> Result<File, Errno> {
        match self {
            Self::Socket(path) => {
                let address = UnixAddr::new(format!("/proc/self/fd/{}", path.as_raw_fd()).as_str())?;
                open(AddressFamily::Unix, &address)
            }
            Self::Vsock { cid, port } => open(AddressFamily::Vsock, &VsockAddr::new(*cid, *port)),
        }
    }
}

fn open(family: AddressFamily, address: &dyn SockaddrLike) -> Result<File, Errno> {
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It holds for the connection as well: a service that takes none keeps nobody for ever.
    setsockopt(&socket, SendTimeout, &time(PATIENCE))?;
    connect(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

impl QuoteSource for Service {
    fn quote(&self, report: &[u8; REPORT_LEN]) -> Result<Vec<u8>, ServiceError> {
        let mut stream = self.connect().map_err(ServiceError::Unreachable)?;
        stream.write_all(&request(report)).map_err(ServiceError::Broken)?;
        let deadline = Instant::now() + PATIENCE;
        let mut length = [0; 4];
        read_until(&mut stream, &mut length, deadline)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST_ANSWER {
            return Err(ServiceError::Answer("it is longer than any quote"));
        }
        let mut message = vec![0; length];
        read_until(&mut stream, &mut message, deadline)?;
        answer(&message)
    }
}

/// Reads all of `buffer`, however small the parts in which it comes.
fn read_until(stream: &mut File, buffer: &mut [u8], deadline: Instant) -> Result<(), ServiceError> {
    let mut rest = buffer;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ServiceError::Broken(io::ErrorKind::TimedOut.into()));
        }
        setsockopt(&stream.as_fd(), ReceiveTimeout, &time(left))
            .map_err(|errno| ServiceError::Broken(errno.into()))?;
        let count = match stream.read(rest) {
            Ok(0) => return Err(ServiceError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(ServiceError::Broken(error)),
        };
        rest = rest.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// At least a millisecond: zero would be for ever.
fn time(duration: Duration) -> TimeVal {
    let milliseconds = duration.as_millis().clamp(1, 1 << 30);
    let milliseconds = i64::try_from(milliseconds).unwrap_or(1);
    TimeVal::new(milliseconds / 1000, milliseconds % 1000 * 1000)
}

fn request(report: &[u8; REPORT_LEN]) -> Vec<u8> {
    let size = HEADER_LEN + 8 + REPORT_LEN;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let mut message = number(size).to_be_bytes().to_vec();
    message.extend(MAJOR.to_le_bytes());
    message.extend(0u16.to_le_bytes());
    message.extend(REQUEST.to_le_bytes());
    message.extend(number(size).to_le_bytes());
    message.extend(0u32.to_le_bytes());
    message.extend(number(REPORT_LEN).to_le_bytes());
    // No list of keys: the service takes the one that it has.
    message.extend(0u32.to_le_bytes());
    message.extend(report);
    message
}

fn answer(message: &[u8]) -> Result<Vec<u8>, ServiceError> {
    let short = ServiceError::Answer("it ends too soon");
    let number = |offset: usize| {
        let bytes = message.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map(|bytes| u32::from_le_bytes(*bytes))
    };
    let (Some(version), Some(kind), Some(size), Some(error)) = (number(0), number(4), number(8), number(12))
    else {
        return Err(short);
    };
    if version & 0xffff != u32::from(MAJOR) || kind != RESPONSE {
        return Err(ServiceError::Answer("it is of another version or kind"));
    }
    if usize::try_from(size).ok() != Some(message.len()) {
        return Err(ServiceError::Answer("it has another length than it says"));
    }
    if error != 0 {
        return Err(ServiceError::Refused(error));
    }
    let (Some(key), Some(quote)) = (number(HEADER_LEN), number(HEADER_LEN + 4)) else { return Err(short) };
    let (Ok(key), Ok(quote)) = (usize::try_from(key), usize::try_from(quote)) else { return Err(short) };
    let body = message.get(HEADER_LEN + 8..).unwrap_or_default();
    let bytes = body.get(key..).filter(|rest| rest.len() == quote && quote != 0);
    bytes.map(<[u8]>::to_vec).ok_or(ServiceError::Answer("its parts are not as long as it says"))
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use nix::fcntl::{OFlag, open as open_path};
    use nix::sys::stat::Mode;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// A message that answers with these parts.
    pub fn response(error: u32, key: &[u8], quote: &[u8]) -> Vec<u8> {
        let size = u32::try_from(24 + key.len() + quote.len()).unwrap();
        let mut message = vec![1, 0, 0, 0, 1, 0, 0, 0];
        message.extend(size.to_le_bytes());
        message.extend(error.to_le_bytes());
        message.extend(u32::try_from(key.len()).unwrap().to_le_bytes());
        message.extend(u32::try_from(quote.len()).unwrap().to_le_bytes());
        message.extend(key);
        message.extend(quote);
        message
    }

    /// A service that answers one request with what `answer` writes.
    pub fn service(
        answer: impl FnOnce(&mut UnixStream, Vec<u8>) + Send + 'static,
    ) -> (Service, thread::JoinHandle<()>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qgs.socket");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4 + 1048];
            stream.read_exact(&mut request).unwrap();
            answer(&mut stream, request);
        });
        let socket = open_path(&path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        (Service::Socket(socket), thread, folder)
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_report_becomes_a_quote() {
        let (service, thread, _folder) = service(|stream, request| {
            // Length; version 1.0, request 0, size, no error; size of the report, no keys; the report.
            assert_eq!(request[..4], 1048u32.to_be_bytes());
            assert_eq!(request[4..20], [1, 0, 0, 0, 0, 0, 0, 0, 0x18, 4, 0, 0, 0, 0, 0, 0]);
            assert_eq!(request[20..28], [0, 4, 0, 0, 0, 0, 0, 0]);
            assert_eq!(request[28..], [7; 1024]);
            // In parts: nobody promises more.
            for part in framed(&response(0, b"key", b"a quote")).chunks(5) {
                stream.write_all(part).unwrap();
            }
        });
        assert_eq!(service.quote(&[7; 1024]).unwrap(), b"a quote");
        thread.join().unwrap();
    }

    #[rstest]
    #[case::refused(framed(&response(0x12, b"", b"")), "refused the report with error 0x12")]
    #[case::nothing(Vec::new(), "did not answer")]
    #[case::half(framed(&response(0, b"", b"quote"))[..20].to_vec(), "did not answer")]
    #[case::huge(u32::MAX.to_be_bytes().to_vec(), "longer than any quote")]
    #[case::empty(framed(b""), "ends too soon")]
    #[case::no_quote(framed(&response(0, b"key", b"")), "parts are not as long")]
    #[case::other_kind(framed(&{ let mut it = response(0, b"", b"q"); it[4] = 0; it }), "another version or kind")]
    #[case::other_version(framed(&{ let mut it = response(0, b"", b"q"); it[0] = 2; it }), "another version or kind")]
    #[case::other_size(framed(&{ let mut it = response(0, b"", b"q"); it[8] = 0; it }), "another length")]
    #[case::long_key(framed(&{ let mut it = response(0, b"", b"q"); it[19] = 0x80; it }), "parts are not as long")]
    fn what_is_no_quote_is_said(#[case] bytes: Vec<u8>, #[case] text: &str) {
        let (service, thread, _folder) = service(move |stream, _| stream.write_all(&bytes).unwrap());
        let error = service.quote(&[0; 1024]).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn a_service_that_is_gone_is_an_absence() {
        let (service, thread, folder) = service(|_, _| {});
        assert!(service.quote(&[0; 1024]).unwrap_err().is_absence());
        thread.join().unwrap();
        // Nobody listens any more.
        assert!(matches!(service.quote(&[0; 1024]), Err(ServiceError::Unreachable(Errno::ECONNREFUSED))));
        drop(folder);
    }

    proptest! {
        #[test]
        fn no_answer_panics(message in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = answer(&message);
        }
    }
}
