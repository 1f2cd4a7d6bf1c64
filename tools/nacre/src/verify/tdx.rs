//! Quotes of Intel TDX guests.
//!
//! Signatures, certificates, revocation lists and the platform's state are the library's work; it takes the collateral from
//! a file and fetches nothing.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::quote::{Report, TDReport10};
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use x509_cert::Certificate;
use x509_cert::der::Encode;

use super::plans::{self, Acceptable};
use super::verdict::Verdict;
use super::{Arguments, Error};
use crate::hex;
use crate::measure::TeeName;

/// Where a quote's header says what it is of (Intel TDX DCAP quoting library API, section A.3.1), and what for TDX.
const TEE_TYPE: std::ops::Range<usize> = 4..8;
const TDX: [u8; 4] = [0x81, 0, 0, 0];
/// Attribute bit: the host may debug the guest.
const DEBUG: u64 = 1;
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// Whether this is a quote of a TDX guest, and not a report of another technology.
pub fn is_quote(bytes: &[u8]) -> bool {
    let version = bytes.first_chunk().map(|version| u16::from_le_bytes(*version));
    matches!(version, Some(4 | 5)) && bytes.get(TEE_TYPE) == Some(&TDX)
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
    verdict.confidential = root.is_none();
    let verifier = match root.map(Certificate::to_der) {
        None => QuoteVerifier::new_prod(),
        Some(Ok(der)) => QuoteVerifier::new(der),
        Some(Err(error)) => {
            verdict.step("root", Err::<String, _>(format!("{error}")));
            return verdict;
        }
    };
    // Debugging is a step of its own, with the reason why it is refused.
    let verified = match verifier.allow_debug(true).verify(bytes, collateral, now) {
        Ok(verified) => verified,
        Err(error) => {
            verdict.step("signature", Err::<String, _>(format!("{error:#}")));
            return verdict;
        }
    };
    let of = if root.is_some() { "the given root" } else { "Intel's root" };
    verdict
        .step("signature", Ok::<_, String>(format!("by a key that leads to {of}, of which none is revoked")));
    platform(&mut verdict, &verified);
    match body(&verified.report) {
        Some(report) => claims(&mut verdict, report, measurements, arguments),
        None => {
            verdict.step("format", Err::<String, _>("this is no quote of a trust domain".to_owned()));
        }
    }
    verdict
}

fn platform(verdict: &mut Verdict, verified: &VerifiedReport) {
    let VerifiedReport { status, advisory_ids, .. } = verified;
    let advisories =
        if advisory_ids.is_empty() { String::new() } else { format!(", see {}", advisory_ids.join(", ")) };
    let outcome = match status.as_str() {
        "UpToDate" => Ok(status.clone()),
        _ => Err(format!("{status}{advisories}: Intel does not call this platform up to date")),
    };
    verdict.step("platform", outcome);
}

fn body(report: &Report) -> Option<&TDReport10> {
    match report {
        Report::TD10(report) => Some(report),
        Report::TD15(report) => Some(&report.base),
        _ => None,
    }
}

/// What the quote says, now that it is known who says it.
fn claims(verdict: &mut Verdict, report: &TDReport10, measurements: &[Acceptable], arguments: &Arguments) {
    verdict.step("measurement", plans::judge(&report.mr_td, TeeName::Tdx, measurements));
    let attributes = u64::from_le_bytes(report.td_attributes);
    let debug = match attributes & DEBUG {
        0 => Ok("the host can't debug the guest"),
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
    for (name, register) in [("rtmr1", report.rt_mr1), ("rtmr2", report.rt_mr2)] {
        // stage0 has compared the images with hashes that are part of the measurement: these say the same once more.
        verdict.skip(name, hex::text(&register));
    }
}

#[cfg(test)]
mod tests;
