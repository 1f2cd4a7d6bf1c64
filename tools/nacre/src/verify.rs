//! `nacre verify`: is this report from the guest that it should be from?

mod certificates;
mod plans;
mod snp;
mod tdx;
mod verdict;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nacre_launch::Measurement;
use thiserror::Error;

use crate::{hex, id_block, measure};
use certificates::{Certificates, CertificatesError};
use verdict::Verdict;

/// For the help text.
pub const EXIT_CODES: &str = "\
Exit status:
  0  the report is accepted: every step is right
  1  the report is refused: at least one step is wrong
  2  nothing was checked: wrong usage, or a file can't be read";

/// Checks the certificates, the signature, and what the report says, and explains each step. AMD's roots are trusted,
/// and no others without --root
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The report, as `nacre report` gives it out: 1184 bytes for SEV-SNP, a quote for TDX, or hexadecimal digits of them
    report: PathBuf,
    /// Certificates in PEM or DER: files, or folders with them. AMD's ARK and ASK are built in
    #[arg(long, required_unless_present = "collateral", num_args = 1.., value_name = "DIR|FILE")]
    certs: Vec<PathBuf>,
    /// For a quote of Intel TDX: what Intel says of the platform, as `dcap-qvl` and Intel's PCCS give it out in JSON
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// The measurement that it must show: 96 hexadecimal digits; may be given several times, one must match
    #[arg(long, value_parser = id_block::measurement, required_unless_present = "plan", conflicts_with = "plan")]
    expect: Vec<Measurement>,
    /// Takes the measurements from the plans of all sizes in this configuration file, or in the installed one; of a TDX
    /// guest also what stage0 makes of RTMR1 and RTMR2, which a guest that extends them itself no longer has
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    plan: Option<Option<PathBuf>>,
    /// The report data that it must show: up to 128 hexadecimal digits, zeros follow
    #[arg(long, value_parser = hex::padded::<64>, value_name = "HEX")]
    report_data: Option<[u8; 64]>,
    /// The host data that it must show: up to 64 hexadecimal digits, zeros follow
    #[arg(long, value_parser = hex::padded::<32>, value_name = "HEX")]
    host_data: Option<[u8; 32]>,
    /// The policy that it must show; without this, one that forbids debugging and migration
    #[arg(long, value_parser = number, value_name = "NUMBER")]
    policy: Option<u64>,
    /// The lowest versions: boot loader, TEE, SNP firmware, microcode, and on Turin FMC
    #[arg(long, value_delimiter = ',', value_name = "B,T,S,M[,F]")]
    min_tcb: Vec<u8>,
    /// The SHA-384 of the ID key that it must show: 96 hexadecimal digits
    #[arg(long, value_parser = hex::bytes::<48>, value_name = "HEX")]
    id_key: Option<[u8; 48]>,
    /// Trusts the root in this file instead of AMD's or Intel's: for the simulated platform, which is not confidential
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Prints JSON: {accepted, tee, confidential, steps: [{name, result, found}]}
    #[arg(long)]
    json: bool,
}

/// The text to print, and the exit status.
///
/// # Errors
/// Nothing could be checked.
pub fn run(arguments: &Arguments) -> Result<(String, ExitCode), Error> {
    let verdict = check(arguments)?;
    let text = if arguments.json { verdict.json() } else { verdict.text() };
    Ok((text, if verdict.accepted() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn check(arguments: &Arguments) -> Result<Verdict, Error> {
    if !matches!(arguments.min_tcb.len(), 0 | 4 | 5) {
        return Err(Error::MinTcb(arguments.min_tcb.len()));
    }
    let report = read(&arguments.report)?;
    // What a terminal showed is as good as the bytes.
    let digits = std::str::from_utf8(&report).ok().and_then(|text| hex::parse(text.trim()));
    let report = digits.filter(|bytes| !bytes.is_empty()).unwrap_or(report);
    let root = arguments.root.as_deref().map(Certificates::load_one).transpose()?;
    let quote = tdx::is_quote(&report);
    let measurements = match &arguments.plan {
        Some(config) => {
            // Only those that it says to be of are computed. Whether it may say so, its signature decides.
            let tee = if quote { tdx::claimed(&report) } else { snp::claimed(&report) };
            plans::of_all_sizes(config.as_deref(), tee)?
        }
        None => plans::given(&arguments.expect),
    };
    if quote {
        only_of_snp(arguments)?;
        let collateral = arguments.collateral.as_deref().ok_or(Error::NoCollateral)?;
        return Ok(tdx::check(
            &report,
            &tdx::collateral(collateral)?,
            root.as_ref(),
            &measurements,
            arguments,
        ));
    }
    let certificates = Certificates::load(&arguments.certs)?;
    Ok(snp::check(&report, &certificates, root.as_ref(), &measurements, arguments))
}

/// A demand that nobody looks at must not look as if it were met.
fn only_of_snp(arguments: &Arguments) -> Result<(), Error> {
    let demands = [
        ("--policy", arguments.policy.is_some()),
        ("--min-tcb", !arguments.min_tcb.is_empty()),
        ("--id-key", arguments.id_key.is_some()),
    ];
    match demands.into_iter().find(|(_, made)| *made) {
        Some((name, _)) => Err(Error::OnlyOfSnp(name)),
        None => Ok(()),
    }
}

/// No report is larger; anything else is not read into memory.
const MOST_BYTES: u64 = 1 << 20;

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(file)?.len() > MOST_BYTES {
        return Err(Error::TooLarge(path.to_owned()));
    }
    fs::read(path).map_err(file)
}

fn number(text: &str) -> Result<u64, String> {
    let number =
        text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    number.map_err(|error| error.to_string())
}

/// Why nothing was checked.
#[derive(Debug, Error)]
pub enum Error {
    /// A file can't be read.
    #[error("can't read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any report.
    #[error("{0} is larger than any report")]
    TooLarge(PathBuf),
    /// A quote without what it is checked by.
    #[error("the report is a quote of Intel TDX: --collateral must say what Intel says of the platform")]
    NoCollateral,
    /// A quote has no such thing.
    #[error("{0} is about SEV-SNP, and the report is a quote of Intel TDX")]
    OnlyOfSnp(&'static str),
    /// A file that is no collateral.
    #[error("{path} is no collateral for a quote")]
    Collateral {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// There are no reference values.
    #[error("can't compute the measurements of --plan")]
    Plan(#[from] measure::Error),
    /// The number of versions.
    #[error("--min-tcb takes four versions, or five on Turin, not {0}")]
    MinTcb(usize),
}

#[cfg(test)]
mod tests;
