//! Quotes of Intel TDX guests.
//!
//! Signatures, certificates, revocation lists and the platform's state are the library's work; it takes the collateral from
//! a file and fetches nothing.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::quote::TDReport10;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use nacre_attestation::tdx::is_software_module;
use nacre_launch::RuntimeMeasurements;
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
    match verified.report.as_td10() {
        Some(report) => {
            let tee = module(&mut verdict, report);
            verdict.confidential = root.is_none() && tee == TeeName::Tdx;
            verdict.tee = tee.name();
            claims(&mut verdict, report, tee, measurements, arguments);
        }
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

/// Which module it is.
fn module(verdict: &mut Verdict, report: &TDReport10) -> TeeName {
    if is_software_module(&report.mr_seam) {
        verdict.skip("module", "a software model reported this: NOT CONFIDENTIAL");
        return TeeName::SimulatedTdx;
    }
    verdict.skip("module", format!("MRSEAM {}", hex::text(&report.mr_seam)));
    TeeName::Tdx
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
mod simulated_tests;
#[cfg(test)]
mod tests;
