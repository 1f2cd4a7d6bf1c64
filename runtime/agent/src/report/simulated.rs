//! The VMM's software security processor, which is not confidential and says so in its reports.
//!
//! The messages are those of `nacre-attestation`'s `wire`: the guest's side of the code is not the VMM's.

use std::time::Duration;

use nacre_protocol::ttrpc::Code;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use super::{Report, ReportData};
use crate::error::{Failure, Reply};

/// The VMM's port for reports.
const PORT: u32 = 1040;
const VERSION: u32 = 1;
/// SECURITY: a host could announce more than the guest has memory.
const MOST_BYTES: usize = 64 << 10;
/// The VMM answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the VMM.
pub async fn over_vsock(data: &ReportData) -> Reply<Report> {
    let asked = async {
        let address = VsockAddr::new(VMADDR_CID_HOST, PORT);
        let stream = VsockStream::connect(address).await.map_err(|_| {
            Failure::precondition(
                "this guest has no source of reports: its VM is neither confidential nor simulated",
            )
        })?;
        ask(stream, data).await
    };
    let late = |_| Failure::deadline("the VMM did not answer the request for a report");
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, data: &ReportData) -> Reply<Report> {
    let broken = |error: std::io::Error| {
        Failure::new(Code::UNAVAILABLE, format!("the VMM broke the connection for a report: {error}"))
    };
    let mut request = VERSION.to_le_bytes().to_vec();
    request.extend(data);
    stream.write_all(&request).await.map_err(broken)?;
    let status = stream.read_u32_le().await.map_err(broken)?;
    let kind = stream.read_u32_le().await.map_err(broken)?;
    let len = stream.read_u32_le().await.map_err(broken)?;
    let provider = match (status, kind) {
        (0, 1) => "simulated-snp",
        (0, 2) => "simulated-tdx",
        (2, _) => {
            return Err(Failure::precondition(
                "the host has no key for simulated reports; `nacre keys` makes one",
            ));
        }
        _ => {
            let text = format!("the VMM gives no report: status {status}, kind {kind}");
            return Err(Failure::new(Code::UNAVAILABLE, text));
        }
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len == 0 || len > MOST_BYTES {
        return Err(Failure::new(Code::OUT_OF_RANGE, format!("the VMM announces a report of {len} bytes")));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(Report { provider: provider.to_owned(), bytes, certificates: Vec::new() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::duplex;

    use super::*;

    async fn answered(answer: &[u8]) -> (Vec<u8>, Reply<Report>) {
        let (guest, mut host) = duplex(4096);
        host.write_all(answer).await.unwrap();
        let reply = ask(guest, &[0xab; 64]).await;
        let mut request = Vec::new();
        host.read_to_end(&mut request).await.unwrap();
        (request, reply)
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_the_wire() {
        let (request, reply) = answered(&[0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7, 8, 9]).await;
        assert_eq!(request.split_at(4), (&[1, 0, 0, 0][..], &[0xab; 64][..]));
        let report = reply.unwrap();
        assert_eq!((report.provider.as_str(), report.bytes), ("simulated-snp", vec![7, 8, 9]));
        let (_, reply) = answered(&[0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7]).await;
        assert_eq!(reply.unwrap().provider, "simulated-tdx");
    }

    #[rstest]
    #[case::no_key(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::FAILED_PRECONDITION)]
    #[case::status(&[9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], Code::UNAVAILABLE)]
    #[case::kind(&[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0], Code::UNAVAILABLE)]
    #[case::empty(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], Code::OUT_OF_RANGE)]
    #[case::huge(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80], Code::OUT_OF_RANGE)]
    #[tokio::test]
    async fn an_answer_that_is_none_is_a_failure(#[case] answer: &[u8], #[case] code: Code) {
        assert_eq!(answered(answer).await.1.unwrap_err().code(), code);
    }
}
