//! Quotes of real hardware: see `sample/README.md`.

mod simulated;

use clap::Parser;

use super::*;
use crate::verify::plans;

const QUOTE: &[u8] = include_bytes!("sample/quote.bin");
const COLLATERAL: &[u8] = include_bytes!("sample/collateral.json");
/// 2025-06-20, a day after the collateral was made.
const THEN: u64 = 1_750_377_600;
const MRTD: std::ops::Range<usize> = 184..232;
const REPORT_DATA: std::ops::Range<usize> = 568..632;
const SIGNED: usize = 632;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

fn verdict(now: u64, quote: &[u8], more: &[&str]) -> (bool, String) {
    let expected = hex::text(&QUOTE[MRTD]);
    let words = ["verify", "quote", "--collateral", "file", "--expect", &expected];
    let arguments = Program::try_parse_from(words.iter().chain(more)).unwrap().arguments;
    let collateral = serde_json::from_slice(COLLATERAL).unwrap();
    let measurements = plans::given(&arguments.expect);
    let verdict = check_at(now, quote, &collateral, None, &measurements, &arguments);
    (verdict.accepted(), verdict.text())
}

#[test]
fn a_quote_of_real_hardware_is_accepted_with_what_it_says() {
    assert!(is_quote(QUOTE));
    let data = hex::text(&QUOTE[REPORT_DATA]);
    let (accepted, text) = verdict(THEN, QUOTE, &["--report-data", &data]);
    assert!(accepted, "{text}");
    let valid = "number 17, valid from 2025-06-19T10:32:27Z to 2025-07-19T";
    for part in ["Intel's root", "b0c06f000000: UpToDate", valid, "the expected one", "can't debug"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn an_extended_quote_of_real_hardware_is_accepted_and_its_extension_is_signed() {
    const QUOTE: &[u8] = include_bytes!("sample/extended-quote.bin");
    const COLLATERAL: &[u8] = include_bytes!("sample/extended-collateral.json");
    /// 2026-10-09, a day after the collateral was made.
    const THEN: u64 = 1_791_504_000;
    /// Behind a header of 48 bytes and the body's type and length.
    const BODY: usize = 54;
    let expected = hex::text(&QUOTE[BODY + 136..BODY + 184]);
    let words = ["verify", "quote", "--collateral", "file", "--expect", &expected];
    let arguments = Program::try_parse_from(words).unwrap().arguments;
    let collateral = serde_json::from_slice(COLLATERAL).unwrap();
    let measurements = plans::given(&arguments.expect);
    let verdict = |quote: &[u8]| check_at(THEN, quote, &collateral, None, &measurements, &arguments);
    let accepted = verdict(QUOTE);
    assert!(accepted.accepted() && accepted.confidential, "{}", accepted.text());
    assert!(accepted.text().contains("the body of TDX 1.5, extended\n"), "{}", accepted.text());
    for place in [BODY + 649, BODY + 884] {
        let mut quote = QUOTE.to_vec();
        quote[place] ^= 1;
        assert_eq!(verdict(&quote).wrong(), ["signature"], "byte {place}");
    }
}

#[test]
fn one_byte_changed_anywhere_in_what_is_signed_is_refused() {
    for place in (0..SIGNED).step_by(37).chain([SIGNED + 4, SIGNED + 70]) {
        let mut quote = QUOTE.to_vec();
        quote[place] ^= 1;
        let (accepted, text) = verdict(THEN, &quote, &[]);
        assert!(!accepted, "byte {place}: {text}");
    }
}

#[test]
fn old_collateral_other_data_and_half_a_quote_are_refused() {
    // The collateral was to be renewed in July 2025.
    let (accepted, text) = verdict(THEN + 90 * 86_400, QUOTE, &[]);
    assert!(!accepted && text.contains("signature"), "{text}");
    let (accepted, text) = verdict(THEN, QUOTE, &["--report-data", "01"]);
    assert!(!accepted && text.contains("expected is 01"), "{text}");
    let (accepted, text) = verdict(THEN, QUOTE, &["--host-data", "01"]);
    assert!(!accepted && text.contains("expected is 01"), "{text}");
    for len in [0, 48, SIGNED, QUOTE.len() / 2] {
        assert!(!verdict(THEN, &QUOTE[..len], &[]).0, "{len}");
    }
}

#[test]
fn other_reports_are_no_quotes() {
    assert!(!is_quote(&[]) && !is_quote(&[5; 1184]));
    let mut sgx = QUOTE.to_vec();
    sgx[4] = 0;
    assert!(!is_quote(&sgx));
}
