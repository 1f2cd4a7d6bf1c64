//! The parts of a quote that nobody signs: lengths, types, and how the certificates are written.
//!
//! SECURITY: whoever hands a quote over may write these otherwise and change nothing that a signature is about. But then
//! there would be many quotes that say the same, and a root in them that is not the one that is trusted. So there is one
//! way to write each.

use dcap_qvl::quote::{AuthData, Quote};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Encode, EncodePem};

/// What the certification data of a quote are, a quoting enclave's report, and of that report: a chain of certificates, or
/// the platform's number, encrypted ("TDX DCAP quoting library API", section A.3).
const QE_REPORT: u16 = 6;
const CERTIFICATES: u16 = 5;
const ENCRYPTED_PPID_2048: u16 = 2;
const ENCRYPTED_PPID_3072: u16 = 3;
/// Report, signature, and the length of the enclave's own data, before these; a type and a length behind them.
const QE_REPORT_LEN: usize = 384 + 64 + 2;
const TYPE_AND_LEN: usize = 2 + 4;
/// Signature and key.
const SIGNATURE_LEN: usize = 64 + 64;
/// SHA-256 of Intel's root, in DER, as it is at certificates.trustedservices.intel.com.
const INTELS_ROOT: [u8; 32] = [
    0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35, 0x0e,
    0x74, 0x24, 0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
];

/// Whether the quote is written as a quoting enclave writes it, with its certificates, up to Intel's root or the one that
/// is trusted instead.
///
/// # Errors
/// What is written otherwise.
pub fn judge(bytes: &[u8], quote: &Quote, root: Option<&Certificate>) -> Result<String, String> {
    let AuthData::V4(auth) = &quote.auth_data else {
        return Err("it is framed as a quote of SGX".to_owned());
    };
    let (outer, qe) = (&auth.certification_data, &auth.qe_report_data);
    let inner = &qe.certification_data;
    if outer.cert_type != QE_REPORT {
        return Err(format!("certification data of type {}, not {QE_REPORT}", outer.cert_type));
    }
    let outer_len = QE_REPORT_LEN + qe.qe_auth_data.data.len() + TYPE_AND_LEN + inner.body.data.len();
    let auth_len = SIGNATURE_LEN + TYPE_AND_LEN + outer.body.data.len();
    let written = bytes.get(quote.signed_length()..).and_then(|rest| rest.split_first_chunk());
    let Some((written, rest)) = written.map(|(len, rest)| (u32::from_le_bytes(*len), rest)) else {
        return Err("it ends before its signature".to_owned());
    };
    if outer.body.data.len() != outer_len || usize::try_from(written) != Ok(auth_len) {
        return Err("the lengths of its parts are not those of what is in them".to_owned());
    }
    if rest.iter().skip(auth_len).any(|byte| *byte != 0) {
        return Err("something follows it".to_owned());
    }
    match inner.cert_type {
        CERTIFICATES => certificates(&inner.body.data, root),
        ENCRYPTED_PPID_2048 | ENCRYPTED_PPID_3072 => {
            Ok("those of the collateral: the quote has none".to_owned())
        }
        other => Err(format!("a platform that is told by certification data of type {other}")),
    }
}

/// Whether the quote has the certificates of the key that signs it. A platform may name itself and leave them to the
/// collateral.
pub fn has_certificates(quote: &Quote) -> bool {
    quote.inner_cert_type() == CERTIFICATES
}

/// The key's own certificate and those above it: PEM with Unix's line ends, and a zero.
fn certificates(text: &[u8], root: Option<&Certificate>) -> Result<String, String> {
    let wrong = |error| format!("its certificates can't be read: {error}");
    let (_, pem) =
        text.split_last().filter(|(last, _)| **last == 0).ok_or("no zero ends its certificates")?;
    let chain = Certificate::load_pem_chain(pem).map_err(wrong)?;
    let mut again = String::new();
    for certificate in &chain {
        again += &certificate.to_pem(LineEnding::LF).map_err(wrong)?;
    }
    if again.as_bytes() != pem {
        return Err("its certificates are not written as Intel writes them".to_owned());
    }
    let top = chain.last().ok_or("it has no certificates")?.to_der().map_err(wrong)?;
    let trusted = match root {
        Some(root) => Sha256::digest(root.to_der().map_err(wrong)?).into(),
        None => INTELS_ROOT,
    };
    if <[u8; 32]>::from(Sha256::digest(top)) != trusted {
        return Err("its last certificate is not the root".to_owned());
    }
    Ok(format!("{} certificates, written as Intel writes them", chain.len()))
}
