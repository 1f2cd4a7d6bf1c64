use std::sync::LazyLock;

use clap::Parser;
use nacre_attestation::{ReportedGuest, SoftwareVcek};
use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::keys::Chain;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

/// Making keys takes a second; all tests share them.
static KEYS: LazyLock<(SoftwareVcek, Chain)> = LazyLock::new(|| {
    let vcek = SoftwareVcek::generate();
    let chain = Chain::generate(&vcek, 2048).unwrap();
    (vcek, chain)
});

fn guest() -> ReportedGuest {
    ReportedGuest {
        measurement: [0x5a; 48],
        policy: 0x3_0000,
        host_data: [7; 32],
        ..ReportedGuest::default()
    }
}

/// A folder with a report about `guest` and the certificates.
fn folder(guest: &ReportedGuest) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (vcek, chain) = &*KEYS;
    let at = |name: &str| folder.path().join(name);
    fs::write(at("report"), vcek.sign_report(guest, &[9; 64])).unwrap();
    fs::create_dir(at("certs")).unwrap();
    for (name, text) in [("ark", &chain.ark), ("ask", &chain.ask), ("vcek", &chain.vcek)] {
        fs::write(at(&format!("certs/{name}.pem")), text).unwrap();
    }
    folder
}

fn verify(folder: &TempDir, line: &str) -> Result<Verdict, String> {
    let words = line.split_whitespace().map(|word| word.replace('@', &folder.path().display().to_string()));
    let words = std::iter::once("verify".to_owned()).chain(words);
    let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
    check(&program.arguments).map_err(|error| error.to_string())
}

fn good() -> String {
    format!("@/report --certs @/certs --root @/certs/ark.pem --expect {}", "5a".repeat(48))
}

#[test]
fn a_simulated_report_is_accepted_by_whoever_trusts_its_root_and_called_not_confidential() {
    let folder = folder(&guest());
    let more = format!(
        "--report-data {} --host-data {} --policy 0x30000 --min-tcb 1,1,1,1",
        "09".repeat(64),
        "07".repeat(32)
    );
    let verdict = verify(&folder, &format!("{} {more}", good())).unwrap();
    assert!(verdict.accepted() && !verdict.confidential && verdict.tee == "simulated", "{}", verdict.text());
    assert!(verdict.text().contains("NOT CONFIDENTIAL"), "{}", verdict.text());
    let json: serde_json::Value = serde_json::from_str(&verdict.json()).unwrap();
    assert_eq!((&json["accepted"], &json["confidential"]), (&true.into(), &false.into()));
    assert!(json["steps"].as_array().unwrap().iter().all(|step| step["result"] != "failed"));
}

#[test]
fn whoever_trusts_amds_roots_refuses_a_simulated_report() {
    let folder = folder(&guest());
    let line = format!("@/report --certs @/certs --expect {}", "5a".repeat(48));
    let verdict = verify(&folder, &line).unwrap();
    assert_eq!(verdict.wrong(), ["root"]);
    // Without the development roots there is nobody above the key.
    let line = format!("@/report --certs @/certs/vcek.pem --expect {}", "5a".repeat(48));
    assert_eq!(verify(&folder, &line).unwrap().wrong(), ["chain"]);
    // The `sev` crate by itself, with AMD's roots above the development key.
    let (_, chain) = &*KEYS;
    use sev::certs::snp::builtin::{genoa, milan, turin};
    use sev::certs::snp::{Certificate, Chain as Foreign, Verifiable, ca};
    use sev::firmware::guest::AttestationReport;
    use sev::parser::ByteParser;
    let bytes: [u8; 1184] = fs::read(folder.path().join("report")).unwrap().try_into().unwrap();
    let report = AttestationReport::from_bytes(&bytes).unwrap();
    let vek = || Certificate::from_pem(chain.vcek.as_bytes()).unwrap();
    let (ark, ask) = (chain.ark.as_bytes(), chain.ask.as_bytes());
    let ours = Foreign { ca: ca::Chain::from_pem(ark, ask).unwrap(), vek: vek() };
    (&ours, &report).verify().unwrap();
    for (ark, ask) in [(milan::ARK, milan::ASK), (genoa::ARK, genoa::ASK), (turin::ARK, turin::ASK)] {
        let amd = Foreign { ca: ca::Chain::from_pem(ark, ask).unwrap(), vek: vek() };
        (&amd, &report).verify().unwrap_err();
    }
}

#[test]
fn one_byte_changed_anywhere_is_refused() {
    let folder = folder(&guest());
    let path = folder.path().join("report");
    let report = fs::read(&path).unwrap();
    // Steps reach every field; the rest of the signature has no meaning.
    for place in (0..0x2a0 + 48).chain(0x2a0 + 72..0x2a0 + 120).step_by(11) {
        let mut changed = report.clone();
        changed[place] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(!verify(&folder, &good()).unwrap().accepted(), "byte {place:#x}");
    }
}

#[rstest]
#[case::measurement(ReportedGuest { measurement: [1; 48], ..guest() }, "", "measurement")]
#[case::debug(ReportedGuest { policy: 0xb_0000, ..guest() }, "", "debug")]
#[case::migration(ReportedGuest { policy: 0x7_0000, ..guest() }, "", "policy")]
#[case::policy(guest(), "--policy 0x20000", "policy")]
#[case::host_data(guest(), "--host-data 08", "host data")]
#[case::report_data(guest(), "--report-data 0909", "report data")]
#[case::tcb(guest(), "--min-tcb 1,1,2,1", "tcb")]
#[case::id_key(guest(), &format!("--id-key {}", "11".repeat(48)), "ID key")]
fn what_is_not_as_demanded_is_named(#[case] guest: ReportedGuest, #[case] more: &str, #[case] wrong: &str) {
    let folder = folder(&guest);
    let verdict = verify(&folder, &format!("{} {more}", good())).unwrap();
    assert_eq!(verdict.wrong(), [wrong], "{}", verdict.text());
}

#[test]
fn another_processors_certificate_is_refused() {
    let folder = folder(&guest());
    let report = SoftwareVcek::generate().sign_report(&guest(), &[9; 64]);
    fs::write(folder.path().join("report"), report).unwrap();
    assert_eq!(verify(&folder, &good()).unwrap().wrong(), ["processor", "signature"]);
}

#[test]
fn a_root_that_did_not_sign_is_refused() {
    let folder = folder(&guest());
    let other = Chain::generate(&KEYS.0, 2048).unwrap();
    fs::write(folder.path().join("certs/ark.pem"), other.ark).unwrap();
    assert_eq!(verify(&folder, &good()).unwrap().wrong(), ["chain"]);
}

#[rstest]
#[case("@/nothing --certs @/certs --expect M", "can't read")]
#[case("@/report --certs @/nothing --expect M", "can't read")]
#[case("@/report --certs @/report --expect M", "no certificates")]
#[case("@/report --certs @/certs/ask.pem --expect M", "kdsintf.amd.com")]
#[case("@/report --certs @/certs", "--expect")]
#[case("@/report --certs @/certs --expect 5a", "96 hexadecimal digits")]
#[case("@/report --certs @/certs --expect M --min-tcb 1,2", "four versions")]
#[case("@/report --certs @/certs --expect M --report-data 1", "hexadecimal digits")]
fn wrong_input_is_named(#[case] line: &str, #[case] expected: &str) {
    let folder = folder(&guest());
    let error = verify(&folder, &line.replace('M', &"5a".repeat(48))).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_file_that_is_no_report_is_refused() {
    let folder = folder(&guest());
    fs::write(folder.path().join("report"), [0; 1184]).unwrap();
    assert_eq!(verify(&folder, &good()).unwrap().wrong(), ["format"]);
    fs::write(folder.path().join("report"), "short").unwrap();
    let verdict = verify(&folder, &good()).unwrap();
    assert!(verdict.text().contains("1184 bytes, this file has 5"), "{}", verdict.text());
}
