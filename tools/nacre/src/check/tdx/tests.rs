//! Hosts that are folders.

use std::os::unix::net::UnixListener;

use rstest::rstest;

use super::*;
use crate::check::report::State;
use crate::check::testing;

const GOOD: [(&str, &str); 6] = [
    ("proc/cpuinfo", "flags\t\t: fpu vmx tdx_host_platform\n"),
    ("proc/sys/kernel/osrelease", "6.18.2-amd64\n"),
    ("sys/module/kvm_intel/parameters/tdx", "Y\n"),
    (MODULE_VERSION, "1.5.06\n"),
    ("sys/fs/cgroup/misc.capacity", "tdx 31\n"),
    ("sys/fs/cgroup/misc.current", "tdx 4\n"),
];

/// A host that has all, but for this file.
fn host(other: &str, content: Option<&str>, machines: bool) -> Host {
    Host::read(testing::host(&GOOD, &[(other, content)]).path(), machines)
}

fn missing(host: &Host) -> Vec<&'static str> {
    testing::missing(host.findings())
}

#[test]
fn a_host_with_everything_lacks_nothing() {
    let host = host("", None, true);
    assert_eq!(missing(&host), Vec::<&str>::new());
    let findings = host.findings();
    let found = |name| &findings.iter().find(|finding| finding.name == name).unwrap().found;
    assert_eq!(found("TDX keys"), "27 of 31 free");
    assert_eq!(found("TDX module"), "version 1.5.06");
    assert_eq!(findings.len(), 6);
}

#[rstest]
#[case::kernel("proc/sys/kernel/osrelease", Some("6.12.57+deb13-amd64\n"), &["TDX kernel"])]
#[case::parameter("sys/module/kvm_intel/parameters/tdx", Some("N\n"), &["TDX in KVM"])]
#[case::module("sys/module/kvm_intel/parameters/tdx", None, &["TDX in KVM"])]
#[case::keys("sys/fs/cgroup/misc.current", Some("tdx 31\n"), &["TDX keys"])]
#[case::older_kernel_without_numbers("sys/fs/cgroup/misc.capacity", None, &[])]
#[case::older_kernel_without_version(MODULE_VERSION, None, &[])]
fn what_is_missing_is_named(#[case] file: &str, #[case] content: Option<&str>, #[case] names: &[&str]) {
    assert_eq!(missing(&host(file, content, true)), names);
}

#[test]
fn a_processor_without_a_module_and_one_without_tdx_are_told_apart() {
    assert_eq!(missing(&host("", None, false)), ["Intel TDX", "TDX module"]);
    let other = host("proc/cpuinfo", Some("flags\t\t: fpu svm\n"), false);
    assert_eq!(missing(&other), ["Intel TDX"]);
    assert_eq!(other.findings().len(), 1);
}

#[test]
fn a_quoting_service_is_asked_and_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qgs.socket");
    let service = QuoteService::try_from(format!("unix:{}", path.display())).unwrap();
    let refused = Host { quotes: reach(&service), ..host("", None, true) };
    let findings = refused.findings();
    let finding = findings.iter().find(|finding| finding.name == "TDX quotes").unwrap();
    assert!(finding.state == State::Missing && !finding.needed);
    assert!(finding.found.contains("qgs.socket"), "{}", finding.found);
    let _listener = UnixListener::bind(&path).unwrap();
    assert_eq!(reach(&service), Ok(()));
}
