//! From a report to a quote, as Intel's quoting enclave does it.

use std::fmt;
use std::sync::OnceLock;

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::DecodePrivateKey;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zerocopy::{FromZeros, IntoBytes};

use super::layout::{EnclaveReport, QuoteBody, QuoteHeader, SignedQuote, TdReport};
use super::{ReportKey, platform};

const VERSION: u16 = 4;
/// ECDSA on P-256 with SHA-256.
const KEY_TYPE: u16 = 2;
const TDX: u32 = 0x81;
/// Intel's quoting enclave, whose formats these are.
const INTEL: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// What a quote's certification data are: the quoting enclave's report, and in that a chain of certificates in PEM.
const QE_REPORT: u16 = 6;
const CERTIFICATES: u16 = 5;
/// The end of the key in the file, before the certificates.
const END_OF_KEY: &str = "-----END PRIVATE KEY-----";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// A quoting enclave and the key that certifies it. That key is the platform's, and in hardware another enclave's.
pub struct QuotingEnclave {
    pck: SigningKey,
    /// In PEM, the key's own certificate first.
    chain: String,
    /// Made when the first quote is asked for: it takes a processor time that most guests don't need.
    certified: OnceLock<Certified>,
}

/// The key that signs quotes, and the enclave's report about it.
struct Certified {
    key: SigningKey,
    public: [u8; 64],
    report: EnclaveReport,
    signature: [u8; 64],
}

impl QuotingEnclave {
    /// An enclave for the platform whose key and chain of certificates this file has, in PEM, the key in PKCS#8 first.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn from_pem(text: &str) -> Result<Self, EnclaveError> {
        let (key, chain) = text.split_once(END_OF_KEY).ok_or(EnclaveError)?;
        let key = SecretKey::from_pkcs8_pem(&format!("{key}{END_OF_KEY}\n")).map_err(|_| EnclaveError)?;
        let chain = chain.trim_start();
        if !chain.starts_with(CERTIFICATE) {
            return Err(EnclaveError);
        }
        Ok(Self { pck: key.into(), chain: chain.to_owned(), certified: OnceLock::new() })
    }

    /// The quote for a report that a module of this machine made; `None` if none did.
    #[must_use]
    pub fn quote(&self, report: &TdReport, key: &ReportKey) -> Option<Vec<u8>> {
        if !key.vouches_for(report) {
            return None;
        }
        let certified = self.certified.get_or_init(|| certify(&self.pck));
        let TdReport { mac, tcb_info, td_info, .. } = report;
        let body = QuoteBody {
            tee_tcb_svn: tcb_info.tee_tcb_svn,
            mr_seam: tcb_info.mr_seam,
            mr_signer_seam: tcb_info.mr_signer_seam,
            seam_attributes: tcb_info.attributes,
            td_attributes: td_info.attributes,
            xfam: td_info.xfam,
            mr_td: td_info.mr_td,
            mr_config_id: td_info.mr_config_id,
            mr_owner: td_info.mr_owner,
            mr_owner_config: td_info.mr_owner_config,
            rtmr: td_info.rtmr,
            report_data: mac.report_data,
        };
        let header = QuoteHeader {
            version: VERSION.into(),
            attestation_key_type: KEY_TYPE.into(),
            tee_type: TDX.into(),
            qe_vendor: INTEL,
            ..QuoteHeader::new_zeroed()
        };
        let signed = SignedQuote { header, body };
        let signature = sign(&certified.key, signed.as_bytes());
        // Intel's enclave has a zero at the end of the text.
        let certification = sized(CERTIFICATES, format!("{}\0", self.chain).as_bytes());
        let auth = authentication_data();
        let qe = [
            certified.report.as_bytes(),
            &certified.signature,
            &length::<2>(auth.len()),
            &auth,
            &certification,
        ]
        .concat();
        let authentication = [&signature[..], &certified.public, &sized(QE_REPORT, &qe)].concat();
        Some([signed.as_bytes(), &length::<4>(authentication.len()), &authentication].concat())
    }
}

/// A new key for quotes, bound to the platform by the enclave's report, which the platform's key signs.
fn certify(pck: &SigningKey) -> Certified {
    let key = SigningKey::random(&mut OsRng);
    let point = key.verifying_key().to_encoded_point(false);
    let mut public = [0; 64];
    // Without the byte that says that the point is whole.
    public.iter_mut().zip(point.as_bytes().iter().skip(1)).for_each(|(place, byte)| *place = *byte);
    let hash = Sha256::new().chain_update(public).chain_update(authentication_data()).finalize();
    let mut report = EnclaveReport {
        cpu_svn: platform::CPU_SVN,
        attributes: platform::QE_ATTRIBUTES,
        mr_signer: platform::QE_MRSIGNER,
        isv_prod_id: platform::QE_PRODUCT.into(),
        isv_svn: platform::QE_SVN.into(),
        ..EnclaveReport::new_zeroed()
    };
    report.report_data.iter_mut().zip(hash).for_each(|(place, byte)| *place = byte);
    let signature = sign(pck, report.as_bytes());
    Certified { key, public, report, signature }
}

/// What Intel's enclave has there: the numbers from 0 to 31.
fn authentication_data() -> [u8; 32] {
    std::array::from_fn(|index| u8::try_from(index).unwrap_or_default())
}

fn sign(key: &SigningKey, bytes: &[u8]) -> [u8; 64] {
    let signature: Signature = key.sign(bytes);
    signature.to_bytes().into()
}

/// A type, a length and the bytes.
fn sized(kind: u16, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length::<4>(bytes.len()), bytes].concat()
}

/// The first bytes of a length, little endian.
fn length<const N: usize>(length: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(length.to_le_bytes()).for_each(|(place, byte)| *place = byte);
    bytes
}

impl fmt::Debug for QuotingEnclave {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuotingEnclave").finish_non_exhaustive()
    }
}

/// The platform's key or its certificates can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no private key for P-256 with its certificates in PEM; `nacre keys` makes both")]
pub struct EnclaveError;

#[cfg(test)]
mod tests {
    use dcap_qvl::quote::{Quote, Report};
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier;
    use p256::pkcs8::{EncodePrivateKey, LineEnding};

    use super::*;
    use crate::tdx::{TrustDomain, is_software_module};

    const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn platform_file() -> (SigningKey, String) {
        let key = SecretKey::random(&mut OsRng);
        let text = key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string() + CHAIN;
        (key.into(), text)
    }

    #[test]
    fn a_foreign_reader_finds_every_field_and_signature() {
        let (pck, text) = platform_file();
        let enclave = QuotingEnclave::from_pem(&text).unwrap();
        let mut domain = TrustDomain::new([1; 48], [2; 48], 1 << 28, 3);
        domain.extend(1, &[7; 48]).unwrap();
        let key = ReportKey::generate();
        let bytes = enclave.quote(&domain.report(&[9; 64], &key), &key).unwrap();
        let quote = Quote::parse(&bytes).unwrap();
        let Report::TD10(report) = &quote.report else { panic!("{:?}", quote.report) };
        assert_eq!((report.mr_td, report.mr_config_id, report.report_data), ([1; 48], [2; 48], [9; 64]));
        assert_eq!([report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3], *domain.registers());
        assert_eq!((u64::from_le_bytes(report.td_attributes), report.xfam[0]), (1 << 28, 3));
        assert!(is_software_module(&report.mr_seam));
        assert_eq!(quote.raw_cert_chain().unwrap(), format!("{CHAIN}\0").as_bytes());

        let signed = &bytes[..quote.signed_length()];
        let auth = quote.auth_data.into_v3();
        let attestation_key = [&[4][..], &auth.ecdsa_attestation_key].concat();
        let attestation_key = VerifyingKey::from_sec1_bytes(&attestation_key).unwrap();
        let signature = Signature::from_slice(&auth.ecdsa_signature).unwrap();
        attestation_key.verify(signed, &signature).unwrap();
        let signature = Signature::from_slice(&auth.qe_report_signature).unwrap();
        pck.verifying_key().verify(&auth.qe_report, &signature).unwrap();
    }

    #[test]
    fn a_report_of_another_machine_gets_no_quote() {
        let enclave = QuotingEnclave::from_pem(&platform_file().1).unwrap();
        let report = TrustDomain::new([1; 48], [2; 48], 0, 3).report(&[9; 64], &ReportKey::generate());
        assert_eq!(enclave.quote(&report, &ReportKey::generate()), None);
    }

    #[test]
    fn a_file_with_something_else_is_refused() {
        let (_, text) = platform_file();
        for wrong in [CHAIN, &text.replace(CHAIN, ""), "", "-----BEGIN PRIVATE KEY-----"] {
            assert_eq!(QuotingEnclave::from_pem(wrong).unwrap_err(), EnclaveError, "{wrong}");
        }
    }
}
