//! One guest, as a TDX module knows it.

use std::fmt;

use hmac::{Hmac, Mac};
use p256::elliptic_curve::rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256, Sha384};
use zerocopy::{FromZeros, IntoBytes};

use super::layout::{ReportMac, TdInfo, TdReport, TeeTcbInfo};
use super::{platform, software_module};

/// A `TDREPORT` of TDX 1.0: type 0x81, the rest zero.
const REPORT_TYPE: [u8; 4] = [0x81, 0, 0, 0];
/// All of the fields of `TEE_TCB_INFO` that TDX 1.0 has.
const VALID: u64 = 0x1ff;
/// The bytes that `REPORTMACSTRUCT`'s MAC is of.
const AUTHENTICATED: usize = 224;

/// The key with which a processor authenticates reports to itself. In hardware nobody can read it.
#[derive(Clone)]
pub struct ReportKey([u8; 64]);

impl ReportKey {
    /// A new key from the system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = [0; 64];
        OsRng.fill_bytes(&mut key);
        Self(key)
    }

    /// Whether a report was made with this key and is as it was then.
    pub(super) fn vouches_for(&self, report: &TdReport) -> bool {
        let hashes = (sha384(report.tcb_info.as_bytes()), sha384(report.td_info.as_bytes()));
        hashes == (report.mac.tcb_info_hash, report.mac.td_info_hash)
            && self.authenticate(&report.mac).verify_slice(&report.mac.mac).is_ok()
    }

    fn authenticate(&self, mac: &ReportMac) -> Hmac<Sha256> {
        let (authenticated, _) = mac.as_bytes().split_at(AUTHENTICATED);
        let mut hmac = <Hmac<Sha256> as Mac>::new(&self.0.into());
        hmac.update(authenticated);
        hmac
    }
}

impl fmt::Debug for ReportKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ReportKey").finish_non_exhaustive()
    }
}

/// What a module keeps of a guest that it has launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain {
    /// MRTD: the launch's measurement.
    pub mr_td: [u8; 48],
    /// MRCONFIGID: what the host said about the guest.
    pub mr_config_id: [u8; 48],
    /// The guest's attributes.
    pub attributes: u64,
    /// The guest's extended features.
    pub xfam: u64,
    /// RTMR 0 to 3: what the guest said about itself.
    rtmr: [[u8; 48]; 4],
}

impl TrustDomain {
    /// A guest that was launched and has not run yet.
    #[must_use]
    pub const fn new(mr_td: [u8; 48], mr_config_id: [u8; 48], attributes: u64, xfam: u64) -> Self {
        Self { mr_td, mr_config_id, attributes, xfam, rtmr: [[0; 48]; 4] }
    }

    /// TDG.MR.RTMR.EXTEND: the register becomes the SHA-384 of itself and of these bytes. `None` if there is no such
    /// register.
    pub fn extend(&mut self, register: usize, digest: &[u8; 48]) -> Option<()> {
        let register = self.rtmr.get_mut(register)?;
        *register = Sha384::new().chain_update(&register).chain_update(digest).finalize().into();
        Some(())
    }

    /// The registers.
    #[must_use]
    pub const fn registers(&self) -> &[[u8; 48]; 4] {
        &self.rtmr
    }

    /// TDG.MR.REPORT: what the module says of the guest, with the guest's own 64 bytes.
    #[must_use]
    pub fn report(&self, report_data: &[u8; 64], key: &ReportKey) -> TdReport {
        let tcb_info = TeeTcbInfo {
            valid: VALID.into(),
            tee_tcb_svn: platform::TEE_TCB_SVN,
            mr_seam: software_module(),
            ..TeeTcbInfo::new_zeroed()
        };
        let td_info = TdInfo {
            attributes: self.attributes.into(),
            xfam: self.xfam.into(),
            mr_td: self.mr_td,
            mr_config_id: self.mr_config_id,
            rtmr: self.rtmr,
            ..TdInfo::new_zeroed()
        };
        let mut mac = ReportMac {
            report_type: REPORT_TYPE,
            cpu_svn: platform::CPU_SVN,
            tcb_info_hash: sha384(tcb_info.as_bytes()),
            td_info_hash: sha384(td_info.as_bytes()),
            report_data: *report_data,
            ..ReportMac::new_zeroed()
        };
        mac.mac = key.authenticate(&mac).finalize().into_bytes().into();
        TdReport { mac, tcb_info, reserved: [0; 17], td_info }
    }
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_fields_where_the_specification_has_them() {
        let mut domain = TrustDomain::new([1; 48], [2; 48], 1 << 28, 3);
        domain.extend(2, &[7; 48]).unwrap();
        let report = domain.report(&[9; 64], &ReportKey::generate());
        let bytes = report.as_bytes();
        assert_eq!(bytes[..4], [0x81, 0, 0, 0]);
        assert_eq!(bytes[128..192], [9; 64]);
        assert_eq!(bytes[512..528], [0, 0, 0, 0x10, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[528..576], [1; 48]);
        assert_eq!(bytes[576..624], [2; 48]);
        assert_eq!(bytes[720..816], [0; 96]);
        let expected: [u8; 48] = Sha384::digest([&[0; 48][..], &[7; 48]].concat()).into();
        assert_eq!(bytes[816..864], expected);
        assert_eq!(domain.extend(4, &[0; 48]), None);
    }

    #[test]
    fn one_byte_changed_anywhere_or_another_machines_report_is_not_vouched_for() {
        use zerocopy::FromBytes;
        let (key, domain) = (ReportKey::generate(), TrustDomain::new([1; 48], [2; 48], 0, 3));
        let report = domain.report(&[9; 64], &key);
        assert!(key.vouches_for(&report) && !ReportKey::generate().vouches_for(&report));
        // Between the two structures are 17 bytes without a meaning.
        for place in (0..495).chain(512..1024) {
            let mut bytes = report.as_bytes().to_vec();
            bytes[place] ^= 1;
            assert!(!key.vouches_for(TdReport::ref_from_bytes(&bytes).unwrap()), "byte {place}");
        }
    }
}
