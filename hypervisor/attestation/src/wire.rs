//! How a guest asks the software security processor for reports: over a stream that it opens to a port of its host.
//!
//! | message | bytes |
//! |---|---|
//! | request | `u32` version, 64 bytes of report data |
//! | answer | `u32` [`Status`], `u32` [`Kind`], `u32` length, that many bytes of report |
//!
//! All numbers are little endian. A connection may carry any number of requests, one after the other, but the host ends it
//! after ten seconds. There is nothing secret in it: whoever can open the port is the guest whose reports these are.

use std::io::{self, ErrorKind, Read, Write};

use thiserror::Error;

/// The host's port.
pub const PORT: u32 = 1040;
/// The version of the messages.
pub const VERSION: u32 = 1;
/// The bytes of a request.
pub const REQUEST_LEN: usize = 68;
/// The bytes of an answer before the report.
pub const HEADER_LEN: usize = 12;
/// The most bytes of a report.
pub const MAX_REPORT: usize = 64 << 10;

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// The report follows.
    Ok = 0,
    /// The request has a version that the host does not know.
    Version = 1,
    /// The host has no key to sign with.
    NoKey = 2,
}

/// What a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// There is none.
    None = 0,
    /// An SEV-SNP attestation report.
    SnpReport = 1,
    /// A TDX quote.
    TdxQuote = 2,
}

/// The request for a report with these data.
#[must_use]
pub fn request(report_data: &[u8; 64]) -> [u8; REQUEST_LEN] {
    let mut bytes = [0; REQUEST_LEN];
    let (version, data) = bytes.split_at_mut(4);
    version.copy_from_slice(&VERSION.to_le_bytes());
    data.copy_from_slice(report_data);
    bytes
}

/// The report data of a request.
///
/// # Errors
/// The request is of another version.
pub fn parse_request(bytes: &[u8; REQUEST_LEN]) -> Result<[u8; 64], WireError> {
    let (version, data) = bytes.split_first_chunk().ok_or(WireError::Length(0))?;
    match u32::from_le_bytes(*version) {
        VERSION => data.try_into().map_err(|_| WireError::Length(data.len())),
        other => Err(WireError::Version(other)),
    }
}

/// Answers the requests of one connection until the guest closes it.
///
/// # Errors
/// The connection breaks, within a request too.
pub fn serve(
    stream: &mut (impl Read + Write),
    mut sign: impl FnMut(&[u8; 64]) -> Option<(Kind, Vec<u8>)>,
) -> io::Result<()> {
    let mut bytes = [0; REQUEST_LEN];
    while read_request(stream, &mut bytes)? {
        let answer = match parse_request(&bytes) {
            Ok(data) => sign(&data)
                .map_or((Status::NoKey, Kind::None, Vec::new()), |(kind, report)| (Status::Ok, kind, report)),
            Err(_) => (Status::Version, Kind::None, Vec::new()),
        };
        let (status, kind, report) = answer;
        stream.write_all(&header(status, kind, report.len()))?;
        stream.write_all(&report)?;
    }
    Ok(())
}

/// Whether there was another request. The end of the stream is an end only between requests.
fn read_request(stream: &mut impl Read, bytes: &mut [u8; REQUEST_LEN]) -> io::Result<bool> {
    let (first, rest) = bytes.split_at_mut(1);
    loop {
        match stream.read(first) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(rest)?;
    Ok(true)
}

fn header(status: Status, kind: Kind, len: usize) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let numbers = [status as u32, kind as u32, u32::try_from(len).unwrap_or(u32::MAX)];
    for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Asks for a report over a stream.
///
/// # Errors
/// The connection breaks, or the host's answer is an error or none of this version.
pub fn ask(stream: &mut (impl Read + Write), report_data: &[u8; 64]) -> Result<(Kind, Vec<u8>), AskError> {
    stream.write_all(&request(report_data))?;
    let mut bytes = [0; HEADER_LEN];
    stream.read_exact(&mut bytes)?;
    let (kind, len) = parse_header(&bytes)?;
    let mut report = vec![0; len];
    stream.read_exact(&mut report)?;
    Ok((kind, report))
}

fn parse_header(bytes: &[u8; HEADER_LEN]) -> Result<(Kind, usize), WireError> {
    let (words, _) = bytes.as_chunks::<4>();
    let [status, kind, len] = words else { return Err(WireError::Length(bytes.len())) };
    match u32::from_le_bytes(*status) {
        0 => {}
        1 => return Err(WireError::Refused("it does not know this version of the request")),
        2 => return Err(WireError::Refused("it has no key to sign with; `nacre keys` makes one")),
        other => return Err(WireError::Status(other)),
    }
    let kind = match u32::from_le_bytes(*kind) {
        1 => Kind::SnpReport,
        2 => Kind::TdxQuote,
        other => return Err(WireError::Kind(other)),
    };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    if len == 0 || len > MAX_REPORT {
        return Err(WireError::Length(len));
    }
    Ok((kind, len))
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// A request of another version.
    #[error("request of version {0}, this is {VERSION}")]
    Version(u32),
    /// The host gives no report.
    #[error("the host gives no report: {0}")]
    Refused(&'static str),
    /// The host answers with something unknown.
    #[error("the host answers with unknown status {0}")]
    Status(u32),
    /// The host gives an unknown kind of report.
    #[error("the host gives a report of unknown kind {0}")]
    Kind(u32),
    /// A message or report of an impossible length.
    #[error("impossible length {0}")]
    Length(usize),
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum AskError {
    /// The connection.
    #[error("the connection to the host broke")]
    Connection(#[from] io::Error),
    /// The answer.
    #[error(transparent)]
    Answer(#[from] WireError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn one_connection_carries_several_requests() {
        let (mut guest, mut host) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(&mut host, |data| Some((Kind::SnpReport, data.to_vec()))));
        for byte in [1, 2] {
            assert_eq!(ask(&mut guest, &[byte; 64]).unwrap(), (Kind::SnpReport, vec![byte; 64]));
        }
        drop(guest);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn a_refusal_says_why() {
        let (mut guest, mut host) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(&mut host, |_| None));
        let error = ask(&mut guest, &[0; 64]).unwrap_err().to_string();
        assert!(error.contains("nacre keys"), "{error}");
        let mut wrong = request(&[0; 64]);
        wrong[0] = 2;
        guest.write_all(&wrong).unwrap();
        let mut answer = [0; HEADER_LEN];
        guest.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        guest.write_all(&wrong[..9]).unwrap();
        drop(guest);
        assert_eq!(server.join().unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[rstest]
    #[case::status([9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], WireError::Status(9))]
    #[case::kind([0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0], WireError::Kind(3))]
    #[case::empty([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], WireError::Length(0))]
    #[case::huge([0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0], WireError::Length(0x1_0001))]
    fn an_answer_that_is_none_is_refused(#[case] bytes: [u8; HEADER_LEN], #[case] error: WireError) {
        assert_eq!(parse_header(&bytes), Err(error));
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let bytes = request(&[0xab; 64]);
        assert_eq!(bytes.split_at(4), (&[1, 0, 0, 0][..], &[0xab; 64][..]));
        assert_eq!(header(Status::Ok, Kind::SnpReport, 1184), [0, 0, 0, 0, 1, 0, 0, 0, 0xa0, 4, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_from_a_guest_get_an_answer(bytes: Vec<u8>) {
            let mut stream = Memory { input: bytes.clone().into(), output: Vec::new() };
            let result = serve(&mut stream, |_| Some((Kind::SnpReport, vec![1])));
            prop_assert_eq!(result.is_ok(), bytes.len().is_multiple_of(REQUEST_LEN));
            prop_assert!(stream.output.len() <= (bytes.len() / REQUEST_LEN) * (HEADER_LEN + 1));
        }
    }

    struct Memory {
        input: std::collections::VecDeque<u8>,
        output: Vec<u8>,
    }

    impl Read for Memory {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.input.read(bytes)
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
