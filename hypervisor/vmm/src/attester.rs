//! Reports of the simulated platform: the guest asks for them over its socket device.
//!
//! SECURITY: requests are the guest's bytes; `nacre_attestation::wire` checks them. A guest can ask without end, and hold
//! connections open; it gets a few threads for that and no more. None of its programs keeps one of them from the others:
//! a connection ends after a while, whatever its other end does.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nacre_attestation::wire::{self, Kind};
use nacre_attestation::{IdBlockFields, ReportedGuest};
use nacre_launch::SignedIdBlock;

use crate::measured::ReportSigner;
use crate::simulated::{Identity, RunningModule};

/// The port of the host on which the guest asks.
pub const PORT: u32 = wire::PORT;
/// Connections that are served at the same time.
const MOST_CONNECTIONS: usize = 4;
/// The longest that one is served. An answer is signed in milliseconds, and our agent asks for one on each connection.
const LONGEST: Duration = Duration::from_secs(10);

/// Signs reports about one guest.
#[derive(Debug)]
pub struct Attester {
    subject: Subject,
    /// Without a key the guest hears that there is none.
    signer: Option<ReportSigner>,
    connections: AtomicUsize,
    longest: Duration,
}

/// Whom reports are about.
#[derive(Debug)]
pub enum Subject {
    /// A guest of the software security processor, about which nothing changes.
    Guest(Box<ReportedGuest>),
    /// The guest that a software TDX module keeps.
    Domain(Arc<RunningModule>),
}

/// A connection until its time is up.
#[derive(Debug)]
struct Limited {
    stream: UnixStream,
    end: Instant,
}

impl Subject {
    /// A guest of the software security processor.
    pub fn guest(identity: &Identity, id_block: Option<&SignedIdBlock>) -> Self {
        Self::Guest(Box::new(ReportedGuest {
            measurement: identity.measurement.0,
            policy: identity.policy.bits(),
            host_data: identity.host_data.0,
            id_block: id_block.map(id_block_fields),
            report_id: ReportedGuest::new_report_id(),
        }))
    }
}

impl Attester {
    /// For a guest that was launched.
    pub fn new(subject: Subject, signer: Option<ReportSigner>) -> Self {
        Self { subject, signer, connections: AtomicUsize::new(0), longest: LONGEST }
    }

    /// Serves a connection of the guest's on a thread of its own; one too many is closed.
    pub fn serve(self: &Arc<Self>, stream: UnixStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let attester = Arc::clone(self);
        let mut stream = Limited { stream, end: Instant::now() + self.longest };
        let serve = move || {
            // A connection that breaks concerns nobody but the guest.
            let _ = wire::serve(&mut stream, |data| attester.report(data));
            attester.connections.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("report".to_owned()).spawn(serve).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn report(&self, data: &[u8; 64]) -> Option<(Kind, Vec<u8>)> {
        match (&self.subject, self.signer.as_ref()?) {
            (Subject::Guest(guest), ReportSigner::Processor(key)) => {
                Some((Kind::SnpReport, key.sign_report(guest, data).to_vec()))
            }
            (Subject::Domain(module), ReportSigner::Enclave(enclave)) => {
                Some((Kind::TdxQuote, module.quote(enclave, data)?))
            }
            // The key is read for the platform that launches.
            (Subject::Guest(_), ReportSigner::Enclave(_))
            | (Subject::Domain(_), ReportSigner::Processor(_)) => None,
        }
    }
}

impl Limited {
    fn left(&self) -> io::Result<Duration> {
        match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn id_block_fields(signed: &SignedIdBlock) -> IdBlockFields {
    let (family_id, image_id, guest_svn) = signed.block().identity();
    IdBlockFields {
        family_id,
        image_id,
        guest_svn,
        id_key_digest: signed.id_key_digest().0,
        author_key_digest: signed.author_key_digest().map(|digest| digest.0),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use nacre_attestation::SoftwareVcek;
    use nacre_attestation::layout::REPORT_LEN;
    use nacre_attestation::tdx::QuotingEnclave;
    use nacre_launch::{HostData, Measurement, Policy};

    use super::*;

    fn attester(key: Option<SoftwareVcek>) -> Arc<Attester> {
        attester_for(LONGEST, key)
    }

    fn attester_for(longest: Duration, key: Option<SoftwareVcek>) -> Arc<Attester> {
        let identity = Identity {
            measurement: Measurement([7; 48]),
            policy: Policy::default(),
            host_data: HostData([9; 32]),
        };
        let (subject, signer) =
            (Subject::guest(&identity, None), key.map(Box::new).map(ReportSigner::Processor));
        Arc::new(Attester { longest, ..Attester::new(subject, signer) })
    }

    fn connect(attester: &Arc<Attester>) -> UnixStream {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        attester.serve(host);
        guest
    }

    #[test]
    fn a_guest_gets_reports_about_itself_with_its_data() {
        let attester = attester(Some(SoftwareVcek::generate()));
        let mut guest = connect(&attester);
        for data in [[1; 64], [2; 64]] {
            let (kind, report) = wire::ask(&mut guest, &data).unwrap();
            assert_eq!((kind, report.len()), (Kind::SnpReport, REPORT_LEN));
            // SEV-SNP firmware ABI 56860, table "ATTESTATION_REPORT Structure".
            assert_eq!(report[0x50..0x90], data);
            assert_eq!(report[0x90..0xc0], [7; 48]);
            assert_eq!(report[0xc0..0xe0], [9; 32]);
        }
    }

    #[test]
    fn a_guest_of_the_software_module_gets_quotes_about_itself_with_its_data() {
        use p256::elliptic_curve::rand_core::OsRng;
        use p256::pkcs8::{EncodePrivateKey, LineEnding};
        let key = p256::SecretKey::random(&mut OsRng).to_pkcs8_pem(LineEnding::LF).unwrap();
        let platform = key.to_string() + "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let enclave = QuotingEnclave::from_pem(&platform).unwrap();
        let module = Arc::new(crate::simulated::module());
        let subject = Subject::Domain(Arc::clone(&module));
        let attester = Arc::new(Attester::new(subject, Some(ReportSigner::Enclave(Box::new(enclave)))));
        let mut guest = connect(&attester);
        module.extend(0x8002).unwrap();
        for data in [[1; 64], [2; 64]] {
            let (kind, quote) = wire::ask(&mut guest, &data).unwrap();
            // Intel TDX DCAP quoting library API, section A.3: a header of 48 bytes, and the body.
            assert_eq!((kind, &quote[48 + 520..48 + 584]), (Kind::TdxQuote, &data[..]));
            assert_eq!(quote[48 + 424..48 + 472], module.registers()[2]);
        }
    }

    #[test]
    fn without_a_key_the_guest_hears_so() {
        let mut guest = connect(&attester(None));
        let refused = wire::ask(&mut guest, &[0; 64]).unwrap_err();
        assert!(crate::chain_text(&refused).contains("no key"), "{refused}");
    }

    #[test]
    fn connections_are_few_and_come_back_when_they_end() {
        let attester = attester(None);
        let mut held: Vec<UnixStream> = (0..MOST_CONNECTIONS).map(|_| connect(&attester)).collect();
        // One too many is closed without a word.
        assert_eq!(connect(&attester).read(&mut [0]).unwrap(), 0);
        // Half a request and then nothing more ends one.
        held.pop().unwrap().write_all(&[1, 0]).unwrap();
        while attester.connections.load(Ordering::Relaxed) == MOST_CONNECTIONS {
            thread::yield_now();
        }
        assert!(wire::ask(&mut connect(&attester), &[0; 64]).is_err());
    }

    #[test]
    fn who_says_nothing_holds_no_connection_for_ever() {
        let attester = attester_for(Duration::from_millis(50), None);
        let mut held: Vec<UnixStream> = (0..MOST_CONNECTIONS).map(|_| connect(&attester)).collect();
        held[0].write_all(&[1]).unwrap();
        for mut silent in held {
            assert_eq!(silent.read(&mut [0]).unwrap(), 0, "the host ends it");
        }
    }

    #[test]
    fn who_asks_without_end_and_hears_nothing_holds_none_either() {
        let attester = attester_for(Duration::from_millis(50), None);
        let mut guest = connect(&attester);
        let request = wire::request(&[0; 64]);
        while guest.write_all(&request).is_ok() {}
        while attester.connections.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
    }
}
