//! Parts of a report in words.

use sev::firmware::guest::AttestationReport;
use sev::firmware::host::TcbVersion;

/// The policy's number and what it allows.
pub fn policy(report: &AttestationReport) -> String {
    let policy = report.policy;
    let smt = if policy.smt_allowed() { "may" } else { "must not" };
    let socket = if policy.single_socket_required() { "one socket only" } else { "any number of sockets" };
    format!(
        "{:#x}: the host {smt} use multithreading, {socket}, no migration agent, firmware interface {}.{} or later",
        u64::from(policy),
        policy.abi_major(),
        policy.abi_minor()
    )
}

/// The versions.
pub fn tcb(version: &TcbVersion) -> String {
    let TcbVersion { fmc, bootloader, tee, snp, microcode } = version;
    let fmc = fmc.map(|fmc| format!(", FMC {fmc}")).unwrap_or_default();
    format!("boot loader {bootloader}, TEE {tee}, SNP firmware {snp}, microcode {microcode}{fmc}")
}
