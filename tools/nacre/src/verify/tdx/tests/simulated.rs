//! Quotes of the simulated platform: the same code checks them, with its root and its collateral.

use std::fs;
use std::sync::LazyLock;

use clap::Parser;
use nacre_attestation::tdx::{QuotingEnclave, ReportKey, TrustDomain};
use rstest::rstest;
use tempfile::TempDir;

use crate::keys::Platform;
use crate::verify::verdict::Verdict;
use crate::verify::{Arguments, check};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

static PLATFORM: LazyLock<Platform> = LazyLock::new(|| Platform::generate().unwrap());

const SEPT_VE_DISABLE: u64 = 1 << 28;

fn domain() -> TrustDomain {
    let mut host_data = [0; 48];
    host_data[..32].fill(7);
    TrustDomain::new([0x5a; 48], host_data, SEPT_VE_DISABLE, 3)
}

fn quote(domain: &TrustDomain) -> Vec<u8> {
    let enclave = QuotingEnclave::from_pem(&PLATFORM.key).unwrap();
    let key = ReportKey::generate();
    enclave.quote(&domain.report(&[9; 64], &key), &key).unwrap()
}

/// A folder with a quote, the root and the collateral.
fn folder(quote: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("quote"), quote).unwrap();
    fs::write(at("root.pem"), &PLATFORM.root).unwrap();
    fs::write(at("collateral.json"), &PLATFORM.collateral).unwrap();
    folder
}

fn verify(folder: &TempDir, line: &str) -> Verdict {
    let line = format!("verify @/quote --collateral @/collateral.json {line}");
    let words = line.split_whitespace().map(|word| word.replace('@', &folder.path().display().to_string()));
    check(&Program::try_parse_from(words).unwrap().arguments).unwrap()
}

fn good() -> String {
    format!("--root @/root.pem --expect {}", "5a".repeat(48))
}

#[test]
fn whoever_trusts_its_root_accepts_it_and_is_told_that_it_is_not_confidential() {
    let folder = folder(&quote(&domain()));
    let more = format!("--report-data {} --host-data {}", "09".repeat(64), "07".repeat(32));
    let verdict = verify(&folder, &format!("{} {more}", good()));
    assert!(verdict.accepted() && !verdict.confidential, "{}", verdict.text());
    assert_eq!(verdict.tee, "simulated-tdx");
    for part in ["UpToDate", "NOT CONFIDENTIAL", "the given root", "can't debug", "4e4143524500"] {
        assert!(verdict.text().contains(part), "{part}: {}", verdict.text());
    }
}

#[test]
fn whoever_trusts_intels_root_or_another_refuses_it() {
    let folder = folder(&quote(&domain()));
    let verdict = verify(&folder, &format!("--expect {}", "5a".repeat(48)));
    assert!(verdict.wrong() == ["root"] && !verdict.confidential, "{}", verdict.text());
    assert!(verdict.text().contains("is not Intel's root"), "{}", verdict.text());
    fs::write(folder.path().join("root.pem"), Platform::generate().unwrap().root).unwrap();
    assert_eq!(verify(&folder, &good()).wrong(), ["root"]);
}

#[test]
fn another_platforms_collateral_is_none_for_it() {
    let folder = folder(&quote(&domain()));
    fs::write(folder.path().join("collateral.json"), Platform::generate().unwrap().collateral).unwrap();
    assert_eq!(verify(&folder, &good()).wrong(), ["signature"]);
}

#[test]
fn one_byte_changed_anywhere_is_refused() {
    let good_quote = quote(&domain());
    let folder = folder(&good_quote);
    let path = folder.path().join("quote");
    let certificates = good_quote.windows(5).position(|window| window == b"-----").unwrap();
    // Steps reach every field that is signed, and each byte of those that are not: types, lengths and line ends.
    let lines = (certificates..good_quote.len()).filter(|place| b"-\n\0".contains(&good_quote[*place]));
    let lengths = [632..636, 764..770, certificates - 6..certificates];
    let places = (0..good_quote.len()).step_by(23).chain(lines).chain(lengths.into_iter().flatten());
    for place in places {
        let mut changed = good_quote.clone();
        changed[place] ^= 1;
        fs::write(&path, changed).unwrap();
        if let Ok(verdict) = try_verify(&folder, "") {
            assert!(!verdict.accepted(), "byte {place:#x}");
        }
    }
}

/// A quote that is none any more is not even compared.
fn try_verify(folder: &TempDir, more: &str) -> Result<Verdict, crate::verify::Error> {
    let line = format!("verify @/quote --collateral @/collateral.json {} {more}", good());
    let words = line.split_whitespace().map(|word| word.replace('@', &folder.path().display().to_string()));
    check(&Program::try_parse_from(words).unwrap().arguments)
}

#[test]
fn demands_that_only_snp_can_meet_are_refused() {
    let folder = folder(&quote(&domain()));
    for demand in ["--policy 0x30000", "--min-tcb 1,1,1,1", &format!("--id-key {}", "11".repeat(48))] {
        let error = try_verify(&folder, demand).unwrap_err().to_string();
        assert!(demand.starts_with(error.split_once(' ').unwrap().0), "{error}");
    }
}

#[rstest]
#[case::measurement(|domain: &mut TrustDomain| domain.mr_td = [1; 48], "measurement")]
#[case::debug(|domain: &mut TrustDomain| domain.attributes |= 1, "debug")]
#[case::profiling(|domain: &mut TrustDomain| domain.attributes |= 1 << 4, "debug")]
// The library refuses these two itself.
#[case::migration(|domain: &mut TrustDomain| domain.attributes |= 1 << 29, "signature")]
#[case::interrupted(|domain: &mut TrustDomain| domain.attributes = 0, "signature")]
fn what_is_not_as_demanded_is_named(#[case] change: fn(&mut TrustDomain), #[case] wrong: &str) {
    let mut domain = domain();
    change(&mut domain);
    let verdict = verify(&folder(&quote(&domain)), &good());
    assert_eq!(verdict.wrong(), [wrong], "{}", verdict.text());
}

/// Quotes of version 5, which say what their body is, and of the modules that have more to say.
mod newer {
    use nacre_attestation::tdx::platform;
    use p256::ecdsa::signature::Signer;
    use p256::ecdsa::{Signature, SigningKey};
    use p256::elliptic_curve::rand_core::OsRng;
    use p256::pkcs8::DecodePrivateKey;
    use sha2::{Digest, Sha256};

    use super::*;

    /// Where the parts of a quote of version 4 are ("TDX DCAP quoting library API", section A.3).
    const HEADER: usize = 48;
    const BODY_END: usize = HEADER + 584;
    const QE_REPORT: usize = BODY_END + 4 + 64 + 64 + 6;
    const QE_REPORT_END: usize = QE_REPORT + 384;
    const QE_DATA: usize = QE_REPORT + 320;
    const QE_AUTH: usize = QE_REPORT_END + 64;

    /// Signed by another key than the quote of version 4, which the platform certifies in the same way.
    fn version_5(kind: u16, more: &[u8]) -> Vec<u8> {
        let old = quote(&domain());
        let size = u32::try_from(584 + more.len()).unwrap();
        let mut signed = [&[5, 0], &old[2..HEADER], &kind.to_le_bytes(), &size.to_le_bytes()].concat();
        signed.extend([&old[HEADER..BODY_END], more].concat());

        let key = SigningKey::random(&mut OsRng);
        let public = key.verifying_key().to_encoded_point(false).as_bytes()[1..].to_vec();
        let mut report = old[QE_REPORT..QE_REPORT_END].to_vec();
        let hash =
            Sha256::new().chain_update(&public).chain_update(&old[QE_AUTH + 2..QE_AUTH + 34]).finalize();
        report[QE_DATA - QE_REPORT..][..32].copy_from_slice(&hash);
        let end = PLATFORM.key.find("-----BEGIN CERTIFICATE").unwrap();
        let pck = SigningKey::from(p256::SecretKey::from_pkcs8_pem(&PLATFORM.key[..end]).unwrap());
        let sign = |key: &SigningKey, bytes: &[u8]| {
            let signature: Signature = key.sign(bytes);
            signature.to_bytes().to_vec()
        };
        let certification = [&report[..], &sign(&pck, &report), &old[QE_AUTH..]].concat();
        let kind_and_len = &old[QE_REPORT - 6..QE_REPORT];
        let auth = [&sign(&key, &signed)[..], &public, kind_and_len, &certification].concat();
        let len = u32::try_from(auth.len()).unwrap().to_le_bytes();
        [&signed[..], &len, &auth].concat()
    }

    /// What TDX 1.5 has behind the body of 1.0: `TEE_TCB_SVN2` and `MRSERVICETD`.
    fn tdx_1_5(service: u8) -> Vec<u8> {
        [&platform::TEE_TCB_SVN[..], &[service; 48]].concat()
    }

    /// What its extension has behind that.
    const EXTENDED: usize = 885 - 648;

    #[rstest]
    #[case::tdx_1_0(2, Vec::new(), "TDX 1.0")]
    #[case::tdx_1_5(3, tdx_1_5(0), "TDX 1.5")]
    #[case::tdx_1_5_extended(4, [tdx_1_5(0), vec![0; EXTENDED]].concat(), "TDX 1.5, extended")]
    fn bodies_of_all_modules_are_read(#[case] kind: u16, #[case] more: Vec<u8>, #[case] name: &str) {
        let verdict = verify(&folder(&version_5(kind, &more)), &good());
        assert!(verdict.accepted(), "{}", verdict.text());
        assert!(
            verdict.text().contains(&format!("version 5, with the body of {name}\n")),
            "{}",
            verdict.text()
        );
        assert!(verdict.text().contains("the expected one"), "{}", verdict.text());
    }

    #[rstest]
    #[case::size_of_another_body(3, Vec::new(), "format")]
    #[case::unknown(5, Vec::new(), "format")]
    // Another guest may change this one: nobody here says which one may.
    #[case::service_domain(3, tdx_1_5(1), "signature")]
    fn other_bodies_are_refused(#[case] kind: u16, #[case] more: Vec<u8>, #[case] wrong: &str) {
        let verdict = verify(&folder(&version_5(kind, &more)), &good());
        assert_eq!(verdict.wrong(), [wrong], "{}", verdict.text());
    }
}

mod planned {
    use nacre_stage0_abi::tdx::{extension, register_of};

    use super::*;
    use crate::measure::tests::configured;
    use crate::measure::{TeeName, Wanted, references};

    /// The guest of the configuration in this folder, as it is when its kernel starts.
    fn started(folder: &TempDir) -> TrustDomain {
        let config = folder.path().join("nacre.toml");
        let configuration = nacre_configuration::Loaded::load_from(&config).unwrap().configuration;
        let wanted = Wanted { tee: Some(TeeName::SimulatedTdx), vcpus: vec![4], ..Wanted::default() };
        let reference = references(&configuration, &wanted).unwrap().remove(0);
        let mut domain = TrustDomain::new(reference.plan.measurement().0, [0; 48], SEPT_VE_DISABLE, 3);
        let hashes = reference.plan.pages().iter().find(|page| page.name() == "hashes").unwrap();
        let page = zerocopy::FromBytes::ref_from_bytes(hashes.content()).unwrap();
        for image in nacre_stage0_abi::Images::parse(page, reference.plan.memory()).unwrap().iter() {
            let register = usize::from(register_of(image.kind));
            domain.extend(register, &extension(&image.sha256)).unwrap();
        }
        domain
    }

    #[test]
    fn a_guests_registers_are_compared_with_the_plans() {
        let config = configured("");
        let mut domain = started(&config);
        let plan = format!("--root @/root.pem --plan {}", config.path().join("nacre.toml").display());
        let verdict = verify(&folder(&quote(&domain)), &plan);
        assert!(verdict.accepted(), "{}", verdict.text());
        assert!(verdict.text().contains("4 vCPUs and 256 MiB (simulated-tdx)"), "{}", verdict.text());
        assert!(verdict.text().contains("the plan's kernel and initrd"), "{}", verdict.text());
        // What the guest does with the registers that are its own is nobody's business here.
        domain.extend(3, &[1; 48]).unwrap();
        assert!(verify(&folder(&quote(&domain)), &plan).accepted());
        domain.extend(2, &[1; 48]).unwrap();
        let verdict = verify(&folder(&quote(&domain)), &plan);
        assert_eq!(verdict.wrong(), ["rtmr2"], "{}", verdict.text());
        let json: serde_json::Value = serde_json::from_str(&verdict.json()).unwrap();
        let step = json["steps"].as_array().unwrap().iter().find(|step| step["name"] == "rtmr2").unwrap();
        assert!(step["found"].as_str().unwrap().contains("expected of the plan's command line"), "{step}");
    }

    #[test]
    fn a_simulated_guest_is_none_of_the_hardwares() {
        let config = configured("");
        let mut domain = started(&config);
        let file = config.path().join("nacre.toml");
        let configuration = nacre_configuration::Loaded::load_from(&file).unwrap().configuration;
        let wanted = Wanted { tee: Some(TeeName::Tdx), vcpus: vec![4], ..Wanted::default() };
        domain.mr_td = references(&configuration, &wanted).unwrap().remove(0).plan.measurement().0;
        let plan = format!("--root @/root.pem --plan {}", file.display());
        let verdict = verify(&folder(&quote(&domain)), &plan);
        assert_eq!(verdict.wrong(), ["measurement"], "{}", verdict.text());
    }
}
