//! SEV-SNP reports, real and simulated.

mod chain;
mod words;

use nacre_attestation::layout::{REPORT_LEN, SIGNED_LEN};
use nacre_attestation::{ChipId, is_simulated};
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use sev::certs::snp;
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser;
use x509_cert::Certificate;

use super::Arguments;
use super::certificates::Certificates;
use super::plans::{self, Acceptable};
use super::verdict::Verdict;
use crate::hex;
use crate::measure::TeeName;

/// Which technology a report says to be of, before anything of it is checked.
pub fn claimed(bytes: &[u8]) -> TeeName {
    read(bytes).map_or(TeeName::Snp, |report| technology(&report))
}

fn technology(report: &AttestationReport) -> TeeName {
    if is_simulated(&report.chip_id) { TeeName::Simulated } else { TeeName::Snp }
}

/// Checks a report, as far as it can be read.
pub fn check(
    bytes: &[u8],
    certificates: &Certificates,
    root: Option<&Certificate>,
    measurements: &[Acceptable],
    arguments: &Arguments,
) -> Verdict {
    let mut verdict = Verdict::new("snp");
    let report = match read(bytes) {
        Ok(report) => report,
        Err(found) => {
            verdict.step("format", Err::<String, _>(found));
            return verdict;
        }
    };
    let tee = technology(&report);
    verdict.tee = tee.name();
    verdict.confidential = tee == TeeName::Snp && root.is_none();
    verdict.step("format", Ok::<_, String>(format!("an SEV-SNP report of version {}", report.version)));

    match chain::find(&report, certificates) {
        Ok(chain) => {
            verdict.step("root", chain.root_is_trusted(root));
            verdict.step("chain", chain.verify());
            verdict.step("validity", chain.is_valid_now());
            verdict.step("processor", chain.is_for(&report));
            verdict.step("signature", signature(bytes, &report, &chain.vek));
        }
        Err(found) => {
            verdict.step("chain", Err::<String, _>(found));
        }
    }
    let platform = if tee == TeeName::Simulated {
        "a software model signed this: NOT CONFIDENTIAL".to_owned()
    } else {
        format!("CHIP_ID {}", hex::text(&report.chip_id))
    };
    verdict.skip("platform", platform);
    claims(&mut verdict, &report, tee, measurements, arguments);
    verdict
}

fn read(bytes: &[u8]) -> Result<AttestationReport, String> {
    let bytes: &[u8; REPORT_LEN] = bytes
        .try_into()
        .map_err(|_| format!("an SEV-SNP report has {REPORT_LEN} bytes, this file has {}", bytes.len()))?;
    let report = AttestationReport::from_bytes(bytes).map_err(|error| format!("no report: {error}"))?;
    if report.sig_algo != 1 {
        return Err(format!("signature algorithm {} is not ECDSA P-384 with SHA-384 (1)", report.sig_algo));
    }
    Ok(report)
}

/// Over the bytes as they came: written again from its fields, a report would lose what is reserved.
fn signature(bytes: &[u8], report: &AttestationReport, vek: &snp::Certificate) -> Result<String, String> {
    let (signed, _) = bytes.split_at_checked(SIGNED_LEN).ok_or("no report")?;
    let signature =
        Signature::try_from(&report.signature).map_err(|error| format!("no signature: {error}"))?;
    let key = VerifyingKey::from_sec1_bytes(vek.public_key_sec1());
    let key = key.map_err(|_| "the signer's key is not on P-384")?;
    key.verify(signed, &signature).map_err(|_| {
        "not by this certificate's key, or the report was changed after it was signed".to_owned()
    })?;
    Ok("the report is as the certificate's key signed it".to_owned())
}

/// What the report says, now that it is known who says it.
fn claims(
    verdict: &mut Verdict,
    report: &AttestationReport,
    tee: TeeName,
    measurements: &[Acceptable],
    arguments: &Arguments,
) {
    verdict.step("measurement", plans::judge(&report.measurement, tee, measurements));
    let policy = u64::from(report.policy);
    match arguments.policy {
        Some(wanted) if wanted == policy => verdict.step("policy", Ok::<_, String>(format!("{policy:#x}"))),
        Some(wanted) => {
            verdict.step("policy", Err::<String, _>(format!("{policy:#x}, expected is {wanted:#x}")))
        }
        None if report.policy.migrate_ma_allowed() => {
            verdict.step("policy", Err::<String, _>(format!("{policy:#x} lets a migration agent in")))
        }
        None => verdict.step("policy", Ok::<_, String>(words::policy(report))),
    };
    verdict.step(
        "debug",
        match report.policy.debug_allowed() {
            false => Ok("the host can't debug the guest"),
            true => Err("the host can read and write the guest's memory"),
        },
    );
    verdict.step(
        "vmpl",
        match report.vmpl {
            0 => Ok("asked for at VMPL 0, the most privileged".to_owned()),
            other => {
                Err(format!("asked for at VMPL {other}: not by the guest's kernel, but by what it contains"))
            }
        },
    );
    tcb(verdict, report, &arguments.min_tcb);
    let wanted = arguments.host_data.map(|wanted| hex::text(&wanted));
    verdict.compare("host data", hex::text(&report.host_data), wanted);
    let wanted = arguments.report_data.map(|wanted| hex::text(&wanted));
    verdict.compare("report data", hex::text(&report.report_data), wanted);
    let wanted = arguments.id_key.map(|wanted| hex::text(&wanted));
    verdict.compare("ID key", hex::text(&report.id_key_digest), wanted);
}

/// What can be lower than it should be: the versions that the key is for, those that can't be undone, and those of the launch.
fn tcb(verdict: &mut Verdict, report: &AttestationReport, lowest: &[u8]) {
    let versions = [
        ("reported", report.reported_tcb),
        ("committed", report.committed_tcb),
        ("at launch", report.launch_tcb),
    ];
    let [(_, reported), ..] = versions;
    if lowest.is_empty() {
        return verdict.skip("tcb", words::tcb(&reported));
    }
    let low = versions.iter().find(|(_, version)| !at_least(version, lowest));
    let outcome = match low {
        Some((which, version)) => {
            Err(format!("{which}: {}, which is lower than {lowest:?}", words::tcb(version)))
        }
        None => Ok(format!("{}, at least {lowest:?}", words::tcb(&reported))),
    };
    verdict.step("tcb", outcome);
}

fn at_least(version: &TcbVersion, lowest: &[u8]) -> bool {
    let found =
        [version.bootloader, version.tee, version.snp, version.microcode, version.fmc.unwrap_or_default()];
    found.iter().zip(lowest).all(|(found, lowest)| found >= lowest)
}

/// The name of the processor in the report; `None` when the host hides it.
fn chip_id(report: &AttestationReport) -> Option<&ChipId> {
    (report.chip_id != [0; 64]).then_some(&report.chip_id)
}
