//! What a quote, and what is known about its platform, are in words.

use std::time::Duration;

use dcap_qvl::quote::{Quote, Report, TDReport10};
use dcap_qvl::{QuoteClaims, TcbStatus};
use x509_cert::der::DateTime;

use crate::hex;
use crate::measure::TeeName;

/// Version and body.
pub fn format(quote: &Quote) -> String {
    let body = match &quote.report {
        Report::TD10(_) => "TDX 1.0",
        Report::TD15(_) => "TDX 1.5",
        Report::TD15Ex(_) => "TDX 1.5, extended",
        Report::SgxEnclave(_) => "an SGX enclave",
    };
    format!("a quote of version {}, with the body of {body}", quote.header.version)
}

/// How long what Intel says is valid.
pub fn validity(claims: &QuoteClaims) -> String {
    let date = |seconds| match DateTime::from_unix_duration(Duration::from_secs(seconds)) {
        Ok(date) => date.to_string(),
        Err(_) => "a date that is none".to_owned(),
    };
    let (start, end) = (date(claims.latest_issue_date), date(claims.earliest_expiration_date));
    format!("number {}, valid from {start} to {end}", claims.tcb.eval_data_number)
}

/// The quoting enclave's state.
pub fn enclave(claims: &QuoteClaims) -> Result<String, String> {
    let (svn, level) = (claims.qe.report.isv_svn, &claims.qe.tcb_level);
    let found = format!("version {svn}: {}{}", level.tcb_status, see(&level.advisory_ids));
    match level.tcb_status {
        TcbStatus::UpToDate => Ok(found),
        _ => Err(format!("{found}: Intel does not call this quoting enclave up to date")),
    }
}

/// The platform's state, which is no better than its enclave's and its module's.
pub fn platform(claims: &QuoteClaims) -> Result<String, String> {
    let (verdict, fmspc) = (&claims.tcb, hex::text(&claims.platform.pck.fmspc));
    let found = format!("FMSPC {fmspc}: {}{}", verdict.status, see(&verdict.advisory_ids));
    match verdict.status {
        TcbStatus::UpToDate => Ok(found),
        _ => Err(format!("{found}: Intel does not call this platform up to date")),
    }
}

/// The module.
pub fn module(report: &TDReport10, tee: TeeName) -> String {
    if tee == TeeName::SimulatedTdx {
        return "a software model reported this: NOT CONFIDENTIAL".to_owned();
    }
    format!("MRSEAM {}", hex::text(&report.mr_seam))
}

fn see(advisories: &[String]) -> String {
    if advisories.is_empty() { String::new() } else { format!(", see {}", advisories.join(", ")) }
}
