//! Quotes of Intel TDX guests.
//!
//! Signatures, certificates, revocation lists and the platform's state are the library's work; it takes the collateral from
//! a file and fetches nothing.

mod framing;
mod words;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::quote::{Quote, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use nacre_attestation::tdx::is_software_module;
use nacre_launch::RuntimeMeasurements;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::certificates::subject;
use super::plans::{self, Acceptable};
use super::verdict::Verdict;
use super::{Arguments, Error};
use crate::hex;
use crate::measure::TeeName;

/// Where a quote's header says what it is of (Intel TDX DCAP quoting library API, section A.3.1), and what for TDX.
const TEE_TYPE: std::ops::Range<usize> = 4..8;
const TDX: [u8; 4] = [0x81, 0, 0, 0];
/// Attribute bit: the host may debug the guest. It is among those eight of which each makes a guest untrusted
/// (TDX module ABI specification 348551, "TD_PARAMS").
const DEBUG: u64 = 1;
const UNDER_DEBUG: u64 = 0xff;
const SEPT_VE_DISABLE: u64 = 1 << 28;
/// In the name of the root of all of Intel's certificates for platforms.
const INTELS_ROOT: &str = "CN=Intel SGX Root CA";

/// Whether this is a quote of a TDX guest, and not a report of another technology.
pub fn is_quote(bytes: &[u8]) -> bool {
    let version = bytes.first_chunk().map(|version| u16::from_le_bytes(*version));
    matches!(version, Some(4 | 5)) && bytes.get(TEE_TYPE) == Some(&TDX)
}

/// Which technology a quote says to be of, before anything of it is checked.
pub fn claimed(bytes: &[u8]) -> TeeName {
    let quote = Quote::parse(bytes).ok();
    let report = quote.as_ref().and_then(|quote| quote.report.as_td10());
    report.map_or(TeeName::Tdx, technology)
}

fn technology(report: &TDReport10) -> TeeName {
    if is_software_module(&report.mr_seam) { TeeName::SimulatedTdx } else { TeeName::Tdx }
}

/// Reads what Intel says of the platform.
///
/// # Errors
/// The file can't be read, or holds something else.
pub fn collateral(path: &Path) -> Result<QuoteCollateralV3, Error> {
    serde_json::from_slice(&super::read(path)?)
        .map_err(|source| Error::Collateral { path: path.to_owned(), source })
}

/// Checks a quote, as far as it can be read.
pub fn check(
    bytes: &[u8],
    collateral: &QuoteCollateralV3,
    root: Option<&Certificate>,
    measurements: &[Acceptable],
    arguments: &Arguments,
) -> Verdict {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    check_at(now, bytes, collateral, root, measurements, arguments)
}

fn check_at(
    now: u64,
    bytes: &[u8],
    collateral: &QuoteCollateralV3,
    root: Option<&Certificate>,
    measurements: &[Acceptable],
    arguments: &Arguments,
) -> Verdict {
    let mut verdict = Verdict::new("tdx");
    let quote = match Quote::parse(bytes) {
        Ok(quote) => quote,
        Err(error) => {
            verdict.step("format", Err::<String, _>(format!("no quote: {error:#}")));
            return verdict;
        }
    };
    verdict.step("format", Ok::<_, String>(words::format(&quote)));
    let verifier = match root.map(Certificate::to_der) {
        None => QuoteVerifier::new_prod(),
        Some(Ok(der)) => QuoteVerifier::new(der),
        Some(Err(error)) => {
            verdict.step("root", Err::<String, _>(format!("{error}")));
            return verdict;
        }
    };
    let mut collateral = collateral.clone();
    if framing::has_certificates(&quote) {
        // The quote's own count, which otherwise nobody would look at.
        collateral.pck_certificate_chain = None;
    }
    // Debugging and the platform's state are steps of their own, with the reason why they are refused.
    let verifier = verifier.allow_debug(true);
    let claims = match verifier.verify_with_policy(bytes, &collateral, now, &QuotePolicy::claims_only(now)) {
        Ok(claims) => claims,
        Err(error) => {
            match other_root(&quote, root) {
                Some(other) => verdict.step("root", Err::<String, _>(other)),
                None => verdict.step("signature", Err::<String, _>(format!("{error:#}"))),
            };
            return verdict;
        }
    };
    let of = if root.is_some() { "the given root" } else { "Intel's root" };
    verdict.step("root", Ok::<_, String>(format!("the certificates lead to {of}, and none is revoked")));
    verdict.step("signature", Ok::<_, String>("the quote is as a key of the quoting enclave signed it"));
    verdict.step("certificates", framing::judge(bytes, &quote, root));
    verdict.step("collateral", Ok::<_, String>(words::validity(&claims)));
    verdict.step("enclave", words::enclave(&claims));
    verdict.step("platform", words::platform(&claims));
    match claims.report.as_td10() {
        Some(report) => {
            let tee = technology(report);
            verdict.skip("module", words::module(report, tee));
            verdict.confidential = root.is_none() && tee == TeeName::Tdx;
            verdict.tee = tee.name();
            self::claims(&mut verdict, report, tee, measurements, arguments);
        }
        None => {
            verdict.step("guest", Err::<String, _>("this is no quote of a trust domain".to_owned()));
        }
    }
    verdict
}

/// Who is at the top of the quote's certificates, if it is another root than is trusted. This is for words only: whom to
/// believe is the library's decision.
fn other_root(quote: &Quote, trusted: Option<&Certificate>) -> Option<String> {
    let chain = dcap_qvl::intel::extract_cert_chain(quote).ok()?;
    let top = Certificate::from_der(chain.last()?).ok()?;
    let name = subject(&top);
    match trusted {
        Some(root) if *root == top => None,
        Some(root) => Some(format!("{name} is not {}, which --root trusts", subject(root))),
        None if name.contains(INTELS_ROOT) => None,
        None => Some(format!("{name} is not Intel's root: whoever made it can sign anything")),
    }
}

/// What the quote says, now that it is known who says it.
fn claims(
    verdict: &mut Verdict,
    report: &TDReport10,
    tee: TeeName,
    measurements: &[Acceptable],
    arguments: &Arguments,
) {
    verdict.step("measurement", plans::judge(&report.mr_td, tee, measurements));
    let attributes = u64::from_le_bytes(report.td_attributes);
    let debug = match (attributes & UNDER_DEBUG, attributes & DEBUG) {
        (0, _) => Ok("the host can't debug the guest"),
        (_, 0) => Err("the host can watch the guest: profiling is allowed"),
        _ => Err("the host can read and write the guest's memory"),
    };
    verdict.step("debug", debug);
    let faults = match attributes & SEPT_VE_DISABLE {
        0 => Err("the host can interrupt the guest at any instruction, by taking a page away"),
        _ => Ok("a page that the host takes away ends the guest (SEPT_VE_DISABLE)"),
    };
    verdict.step("attributes", faults);
    let mut padded = [0; 48];
    if let Some(wanted) = arguments.host_data {
        padded.iter_mut().zip(wanted).for_each(|(place, byte)| *place = byte);
    }
    let wanted = arguments.host_data.map(|_| hex::text(&padded));
    verdict.compare("host data", hex::text(&report.mr_config_id), wanted);
    let wanted = arguments.report_data.map(|data| hex::text(&data));
    verdict.compare("report data", hex::text(&report.report_data), wanted);
    let planned = plans::find(&report.mr_td, tee, measurements).and_then(|plan| plan.runtime);
    runtime(verdict, report, planned);
}

/// The registers that stage0 extends. It has compared the images with hashes that are part of the measurement: these say the
/// same once more, and whether anybody extended them since.
fn runtime(verdict: &mut Verdict, report: &TDReport10, planned: Option<RuntimeMeasurements>) {
    verdict.skip("rtmr0", format!("{}, which nacre does not use", hex::text(&report.rt_mr0)));
    let registers = [
        ("rtmr1", report.rt_mr1, planned.map(|planned| planned.rtmr1), "kernel and initrd"),
        ("rtmr2", report.rt_mr2, planned.map(|planned| planned.rtmr2), "command line"),
    ];
    for (name, found, planned, images) in registers {
        let found = hex::text(&found);
        match planned {
            None => verdict.skip(name, format!("{found}, {images}: only --plan knows what it should be")),
            Some(planned) if planned.to_string() == found => {
                verdict.step(name, Ok::<_, String>(format!("{found}, the plan's {images}")));
            }
            Some(planned) => {
                let wrong = format!("{found}, expected of the plan's {images} and nothing else is {planned}");
                verdict.step(name, Err::<String, _>(wrong));
            }
        }
    }
    verdict.skip("rtmr3", format!("{}, which is the guest's own", hex::text(&report.rt_mr3)));
}

#[cfg(test)]
mod tests;
