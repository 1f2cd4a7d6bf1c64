//! What Intel's service says of a platform: which versions are up to date, which quoting enclave is Intel's, and what is
//! revoked.

use dcap_qvl::tcb_info::TdxModule;
use dcap_qvl::{
    QeIdentity, QeTcb, QeTcbLevel, QuoteCollateralV3, Tcb, TcbComponents, TcbInfo, TcbLevel, TcbStatus,
};
use nacre_attestation::tdx::platform;
use p256::ecdsa::SigningKey;
use serde::Serialize;
use x509_cert::der::DateTime;

use super::{Span, sign};
use crate::hex;
use crate::keys::chain::ChainError;

/// The number of this state of knowledge.
const EVALUATION: u32 = 1;

/// What it is made of.
pub struct Parts<'a> {
    /// The certificates above the platform's, in PEM.
    pub pck_issuers: String,
    /// The signer's certificate and the root, in PEM.
    pub tcb_issuers: String,
    /// The root's list of revoked certificates, in DER.
    pub root_crl: Vec<u8>,
    /// The same of who signs platforms.
    pub pck_crl: Vec<u8>,
    /// Who signs statements.
    pub signer: &'a SigningKey,
    /// When it is valid.
    pub span: Span,
}

/// The collateral as `dcap-qvl` has it in JSON.
pub fn text(parts: &Parts<'_>) -> Result<String, ChainError> {
    let tcb_info = json(&tcb_info(parts.span)?)?;
    let qe_identity = json(&qe_identity(parts.span)?)?;
    let collateral = QuoteCollateralV3 {
        pck_crl_issuer_chain: parts.pck_issuers.clone(),
        root_ca_crl: parts.root_crl.clone(),
        pck_crl: parts.pck_crl.clone(),
        tcb_info_issuer_chain: parts.tcb_issuers.clone(),
        tcb_info_signature: sign(parts.signer, tcb_info.as_bytes()),
        tcb_info,
        qe_identity_issuer_chain: parts.tcb_issuers.clone(),
        qe_identity_signature: sign(parts.signer, qe_identity.as_bytes()),
        qe_identity,
        pck_certificate_chain: None,
    };
    Ok(serde_json::to_string_pretty(&collateral).map_err(ChainError::Json)? + "\n")
}

fn tcb_info(span: Span) -> Result<TcbInfo, ChainError> {
    let (issue_date, next_update) = dates(span)?;
    let tcb = Tcb {
        sgx_components: components(platform::CPU_SVN),
        tdx_components: components(platform::TEE_TCB_SVN),
        pce_svn: platform::PCE_SVN.into(),
    };
    let level = TcbLevel {
        tcb,
        tcb_date: issue_date.clone(),
        tcb_status: TcbStatus::UpToDate,
        advisory_ids: Vec::new(),
    };
    Ok(TcbInfo {
        id: "TDX".to_owned(),
        version: 3,
        issue_date,
        next_update,
        fmspc: hex::text(&platform::FMSPC),
        pce_id: hex::text(&platform::PCE_ID),
        tcb_type: 0,
        tcb_evaluation_data_number: EVALUATION,
        tcb_levels: vec![level],
        // As Intel's own module: its signer and its attributes are zeros.
        tdx_module: Some(TdxModule {
            mrsigner: hex::text(&[0; 48]),
            attributes: hex::text(&[0; 8]),
            attributes_mask: hex::text(&[0xff; 8]),
        }),
        tdx_module_identities: Vec::new(),
    })
}

fn qe_identity(span: Span) -> Result<QeIdentity, ChainError> {
    let (issue_date, next_update) = dates(span)?;
    let level = QeTcbLevel {
        tcb: QeTcb { isvsvn: platform::QE_SVN },
        tcb_date: issue_date.clone(),
        tcb_status: TcbStatus::UpToDate,
        advisory_ids: Vec::new(),
    };
    Ok(QeIdentity {
        id: "TD_QE".to_owned(),
        version: 2,
        issue_date,
        next_update,
        tcb_evaluation_data_number: EVALUATION,
        miscselect: [0; 4],
        miscselect_mask: [0xff; 4],
        attributes: platform::QE_ATTRIBUTES,
        attributes_mask: [0xff; 16],
        mrsigner: platform::QE_MRSIGNER,
        isvprodid: platform::QE_PRODUCT,
        tcb_levels: vec![level],
    })
}

fn components(versions: [u8; 16]) -> Vec<TcbComponents> {
    versions.into_iter().map(|svn| TcbComponents { svn }).collect()
}

fn dates(span: Span) -> Result<(String, String), ChainError> {
    let date = |since_epoch| DateTime::from_unix_duration(since_epoch).map(|date| date.to_string());
    Ok((date(span.start)?, date(span.end)?))
}

fn json(value: &impl Serialize) -> Result<String, ChainError> {
    serde_json::to_string(value).map_err(ChainError::Json)
}
