//! Hosts that are folders.

use rstest::rstest;

use super::*;
use crate::check::testing;

const GOOD: [(&str, &str); 6] = [
    ("proc/cpuinfo", "flags\t\t: fpu svm sev sev_es sev_snp\n"),
    ("proc/sys/kernel/osrelease", "6.18.2-amd64\n"),
    ("sys/module/kvm_amd/parameters/sev_snp", "Y\n"),
    ("dev/sev", ""),
    ("sys/fs/cgroup/misc.capacity", "sev 410\nsev_es 99\n"),
    ("sys/fs/cgroup/misc.current", "sev 0\nsev_es 3\n"),
];
const ALL: Offers = Offers { machines: true, policy: Some(0x3bf_ffff), vmsa_features: Some(0x220) };
const CURRENT: Interface = Interface { version: (1, 58), build: 7 };

/// A host that has all, but for these files.
fn host(other: &[(&str, Option<&str>)], kvm: Offers, firmware: Interface) -> Host {
    let mut host = Host::read(testing::host(&GOOD, other).path(), kvm);
    host.firmware = host.device.is_ok().then_some(Ok(firmware));
    host
}

fn missing(host: &Host, policy: u64) -> Vec<&'static str> {
    testing::missing(host.findings(Policy::new(policy).unwrap()))
}

#[test]
fn a_host_with_everything_lacks_nothing() {
    let host = host(&[], ALL, CURRENT);
    assert_eq!(missing(&host, 0x3_0000), Vec::<&str>::new());
    let findings = host.findings(Policy::default());
    let found = |name| &findings.iter().find(|finding| finding.name == name).unwrap().found;
    assert_eq!(found("SNP ASIDs"), "96 of 99 free");
    assert_eq!(found("SNP firmware"), "interface 1.58, build 7");
    assert_eq!(findings.len(), 8);
}

#[rstest]
#[case::kernel("proc/sys/kernel/osrelease", Some("6.10.1\n"), "SNP kernel")]
#[case::parameter("sys/module/kvm_amd/parameters/sev_snp", Some("N\n"), "SNP module")]
#[case::module("sys/module/kvm_amd/parameters/sev_snp", None, "SNP module")]
#[case::device("dev/sev", None, "SNP device")]
#[case::no_asid("sys/fs/cgroup/misc.capacity", Some("sev 509\nsev_es 0\n"), "SNP ASIDs")]
#[case::all_asids_used("sys/fs/cgroup/misc.current", Some("sev_es 99\n"), "SNP ASIDs")]
fn what_is_missing_is_named(#[case] file: &str, #[case] text: Option<&str>, #[case] name: &'static str) {
    assert_eq!(missing(&host(&[(file, text)], ALL, CURRENT), 0x3_0000), [name]);
}

#[rstest]
#[case::refused_bit(Some(0x3b_ffff), 0x203_0000, true)]
#[case::taken_bit(Some(0x3bf_ffff), 0x203_0000, false)]
#[case::old_kernel(None, 0x3_0000, false)]
#[case::old_kernel_without_smt(None, 0x2_0000, true)]
#[case::old_kernel_and_one_socket(None, 0x13_0000, true)]
fn a_policy_that_kvm_refuses_is_told_before_it_does(
    #[case] bits: Option<u64>,
    #[case] policy: u64,
    #[case] refused: bool,
) {
    let host = host(&[], Offers { policy: bits, ..ALL }, CURRENT);
    assert_eq!(missing(&host, policy), if refused { vec!["SNP policy"] } else { vec![] });
}

#[rstest]
#[case::too_old_for_linux((1, 50), 0x3_0000, true)]
#[case::oldest((1, 51), 0x3_0000, false)]
#[case::older_than_the_policy_demands((1, 55), 0x3_0138, true)]
#[case::as_the_policy_demands((1, 56), 0x3_0138, false)]
fn the_firmware_is_as_new_as_kernel_and_policy_demand(
    #[case] version: (u8, u8),
    #[case] policy: u64,
    #[case] old: bool,
) {
    let host = host(&[], ALL, Interface { version, build: 1 });
    assert_eq!(missing(&host, policy), if old { vec!["SNP firmware"] } else { vec![] });
}

#[test]
fn a_firmware_that_cant_be_asked_is_missing() {
    let mut host = host(&[], ALL, CURRENT);
    host.firmware = Some(Err("Inappropriate ioctl".to_owned()));
    assert_eq!(missing(&host, 0x3_0000), ["SNP firmware"]);
}

#[test]
fn a_kernel_that_cant_start_one_does_not_tell_the_features() {
    assert_eq!(
        missing(&host(&[], Offers { vmsa_features: None, ..ALL }, CURRENT), 0x3_0000),
        ["SNP VMSA features"]
    );
}

#[test]
fn a_host_with_nothing_of_it_gets_one_line() {
    let host = host(&[("proc/cpuinfo", Some("flags : fpu svm\n"))], Offers::default(), CURRENT);
    assert_eq!(missing(&host, 0x3_0000), ["AMD SEV-SNP"]);
    assert_eq!(host.findings(Policy::default()).len(), 1);
}
