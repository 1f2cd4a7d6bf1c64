//! What Intel says in a PCK certificate about the platform.

use nacre_attestation::tdx::platform;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, OctetString, Uint};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Encode, Tag};
use x509_cert::ext::pkix::CrlNumber;
use x509_cert::ext::{AsExtension, Extension};
use x509_cert::name::Name;

use crate::keys::chain::{ChainError, Extra};

/// All of it is below this one.
const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
const PPID: u32 = 1;
const TCB: u32 = 2;
const PCE_ID: u32 = 3;
const FMSPC: u32 = 4;
const SGX_TYPE: u32 = 5;
/// Below [`TCB`], behind the sixteen components.
const PCE_SVN: u32 = 17;
const CPU_SVN: u32 = 18;
/// SGX's first type, without integrity of memory against the host.
const STANDARD: u8 = 0;

/// The extension with the versions of the software platform.
pub fn of_platform() -> Result<Extra, ChainError> {
    let tcb = SGX.push_arc(TCB)?;
    let mut versions = Vec::new();
    for (arc, version) in (1..).zip(platform::CPU_SVN) {
        versions.push(entry(tcb.push_arc(arc)?, Any::encode_from(&version)?));
    }
    versions.push(entry(tcb.push_arc(PCE_SVN)?, Any::encode_from(&platform::PCE_SVN)?));
    versions.push(entry(tcb.push_arc(CPU_SVN)?, octets(&platform::CPU_SVN)?));
    let fields = vec![
        entry(SGX.push_arc(PPID)?, octets(&[0; 16])?),
        entry(tcb, Any::encode_from(&versions)?),
        entry(SGX.push_arc(PCE_ID)?, octets(&platform::PCE_ID)?),
        entry(SGX.push_arc(FMSPC)?, octets(&platform::FMSPC)?),
        entry(SGX.push_arc(SGX_TYPE)?, Any::new(Tag::Enumerated, [STANDARD])?),
    ];
    Ok(Extra { oid: SGX, value: fields.to_der()? })
}

/// The number that lists of revoked certificates must have (RFC 5280, section 5.2.3).
pub fn crl_number(issuer: &Name) -> Result<Extension, ChainError> {
    Ok(CrlNumber(Uint::new(&[1])?).to_extension(issuer, &[])?)
}

fn entry(oid: ObjectIdentifier, value: Any) -> AttributeTypeAndValue {
    AttributeTypeAndValue { oid, value }
}

fn octets(bytes: &[u8]) -> Result<Any, ChainError> {
    Ok(Any::encode_from(&OctetString::new(bytes)?)?)
}
