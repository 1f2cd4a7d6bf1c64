//! From a report to a root.

use std::time::SystemTime;

use sev::certs::snp::builtin::{genoa, milan, turin};
use sev::certs::snp::{Certificate, Verifiable};
use sev::firmware::guest::AttestationReport;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;

use super::{chip_id, words};
use crate::keys::oid;
use crate::verify::certificates::{Certificates, subject};

/// The certificates of one report.
pub struct Chain {
    ark: x509_cert::Certificate,
    ask: x509_cert::Certificate,
    signer: x509_cert::Certificate,
    /// The signer's, as the `sev` crate has it.
    pub vek: Certificate,
}

/// AMD's own, which are in the `sev` crate.
fn amd() -> impl Iterator<Item = (x509_cert::Certificate, x509_cert::Certificate)> {
    let pairs = [(milan::ark(), milan::ask()), (genoa::ark(), genoa::ask()), (turin::ark(), turin::ask())];
    pairs.into_iter().filter_map(|(ark, ask)| Some((ark.ok()?.into(), ask.ok()?.into())))
}

/// The signer whose certificate fits the report, with those above it: from the files, otherwise AMD's.
///
/// # Errors
/// Which certificate is missing.
pub fn find(report: &AttestationReport, certificates: &Certificates) -> Result<Chain, String> {
    let signers = &certificates.signers;
    let fitting = signers.iter().find(|signer| fits(signer, report).is_ok());
    let signer = fitting.or(signers.first()).ok_or("there is no signer's certificate")?.clone();
    let above = |certificate: &x509_cert::Certificate, list: Vec<x509_cert::Certificate>| {
        let issuer = &certificate.tbs_certificate.issuer;
        list.into_iter().find(|candidate| candidate.tbs_certificate.subject == *issuer).ok_or_else(|| {
            format!("{} is signed by {issuer}, whose certificate is not there", subject(certificate))
        })
    };
    let own = |list: &[x509_cert::Certificate]| list.to_vec();
    let asks = own(&certificates.intermediate).into_iter().chain(amd().map(|(_, ask)| ask)).collect();
    let ask = above(&signer, asks)?;
    let arks = own(&certificates.roots).into_iter().chain(amd().map(|(ark, _)| ark)).collect();
    let ark = above(&ask, arks)?;
    Ok(Chain { vek: signer.clone().into(), ark, ask, signer })
}

impl Chain {
    /// The root is AMD's, or the one that is trusted instead.
    pub fn root_is_trusted(&self, instead: Option<&x509_cert::Certificate>) -> Result<String, String> {
        let name = subject(&self.ark);
        match instead {
            Some(root) if *root == self.ark => Ok(format!("{name}, trusted by --root instead of AMD's")),
            Some(root) => Err(format!("{name} is not {}, which --root trusts", subject(root))),
            None if amd().any(|(ark, _)| ark == self.ark) => Ok(format!("{name}, AMD's own")),
            None => Err(format!("{name} is none of AMD's roots: whoever made it can sign anything")),
        }
    }

    /// Each certificate is signed by the one above.
    pub fn verify(&self) -> Result<String, String> {
        let [ark, ask, vek] = [&self.ark, &self.ask, &self.signer].map(|one| Certificate::from(one.clone()));
        for (signer, signed, name) in
            [(&ark, &ark, &self.ark), (&ark, &ask, &self.ask), (&ask, &vek, &self.signer)]
        {
            (signer, signed).verify().map_err(|error| format!("{}: {error}", subject(name)))?;
        }
        Ok(format!("{} < {} < {}", subject(&self.signer), subject(&self.ask), subject(&self.ark)))
    }

    /// None of the certificates is out of date.
    pub fn is_valid_now(&self) -> Result<&'static str, String> {
        let now = SystemTime::now();
        for certificate in [&self.ark, &self.ask, &self.signer] {
            let validity = &certificate.tbs_certificate.validity;
            let (start, end) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
            if now < start || now > end {
                let (start, end) = (validity.not_before, validity.not_after);
                return Err(format!("{} is valid from {start} to {end}", subject(certificate)));
            }
        }
        Ok("all certificates are valid today")
    }

    /// The signer's key is that of the report's processor and versions.
    pub fn is_for(&self, report: &AttestationReport) -> Result<String, String> {
        fits(&self.signer, report)
    }
}

fn fits(signer: &x509_cert::Certificate, report: &AttestationReport) -> Result<String, String> {
    let tcb = report.reported_tcb;
    let versions = [
        ("boot loader", oid::BOOT_LOADER, Some(tcb.bootloader)),
        ("TEE", oid::TEE, Some(tcb.tee)),
        ("SNP firmware", oid::SNP, Some(tcb.snp)),
        ("microcode", oid::MICROCODE, Some(tcb.microcode)),
        ("FMC", oid::FMC, tcb.fmc),
    ];
    for (name, oid, reported) in versions {
        let certified = extension(signer, oid).and_then(|value| u8::from_der(value).ok());
        if let Some(reported) = reported.filter(|reported| Some(*reported) != certified) {
            let certified = certified.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(format!(
                "the key is for {name} version {certified}, the report is of version {reported}"
            ));
        }
    }
    match (extension(signer, oid::HARDWARE_ID), chip_id(report)) {
        (Some(certified), Some(reported)) if certified != reported => {
            Err("the key is another processor's: CHIP_ID differs".to_owned())
        }
        // A VLEK is for a cloud, not for a processor.
        (None, _) => Ok(format!("the key is for {}, of no certain processor", words::tcb(&tcb))),
        (Some(_), None) => Ok(format!("the key is for {}; the host hides CHIP_ID", words::tcb(&tcb))),
        (Some(_), Some(_)) => Ok(format!("the key is this processor's, for {}", words::tcb(&tcb))),
    }
}

fn extension(certificate: &x509_cert::Certificate, oid: ObjectIdentifier) -> Option<&[u8]> {
    let mut list = certificate.tbs_certificate.extensions.iter().flatten();
    list.find(|extension| extension.extn_id == oid).map(|extension| extension.extn_value.as_bytes())
}
