//! `nacre report`: a pod's attestation report.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use nacre_operator::{Call, Report};

use crate::hex;
use crate::pods::{AskError, PodError, Wanted};
use crate::printable;

/// Has the guest get a fresh report with these data in it, and gives it out as it is: `nacre verify` checks it
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pod: Wanted,
    /// The report data, chosen by whoever wants to know that the report is fresh: up to 128 hexadecimal digits, zeros follow
    #[arg(long, value_parser = hex::padded::<64>, value_name = "HEX")]
    data: [u8; 64],
    /// Writes the report to this file instead of the output, where a terminal gets hexadecimal digits
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prints JSON instead: {provider, report, certificates}, bytes as hexadecimal digits
    #[arg(long)]
    json: bool,
}

/// Writes the report; the text to print and the exit status come back.
///
/// # Errors
/// There is no such pod, or it has no report.
pub fn run(arguments: &Arguments) -> Result<(String, ExitCode), PodError> {
    let call = Call::Report { data: hex::text(&arguments.data) };
    let report: Report = arguments.pod.find()?.ask(call)?.only()?;
    // SECURITY: all of it comes from the guest.
    let bytes = hex::parse(&report.report).filter(|bytes| !bytes.is_empty()).ok_or(AskError::Unreadable)?;
    let certificates = hex::parse(&report.certificates).ok_or(AskError::Unreadable)?;
    if let Some(path) = &arguments.output {
        fs::write(path, &bytes).map_err(PodError::io("writing the report"))?;
    }
    let text = if arguments.json {
        json(&Report {
            provider: printable::text(&report.provider),
            report: hex::text(&bytes),
            certificates: hex::text(&certificates),
        })
    } else if arguments.output.is_some() {
        String::new()
    } else if io::stdout().is_terminal() {
        hex::text(&bytes) + "\n"
    } else {
        io::stdout().lock().write_all(&bytes).map_err(PodError::io("writing the report"))?;
        String::new()
    };
    Ok((text, ExitCode::SUCCESS))
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use nacre_operator::{Fault, Reply};

    use super::*;
    use crate::pods::tests::{pod, shim};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn report(answer: &Reply<Report>, more: &[&str]) -> Result<String, String> {
        let node = tempfile::tempdir().unwrap();
        let folder = pod(node.path(), "abc", None, true);
        let shim = shim(&folder, Some(answer.line()));
        let state = node.path().display().to_string();
        let words =
            ["report", "abc", "--data", "0102", "--state", &state].into_iter().chain(more.iter().copied());
        let program = Program::try_parse_from(words).unwrap();
        let result = run(&program.arguments).map(|(text, _)| text).map_err(|error| error.to_string());
        shim.join().unwrap();
        result
    }

    fn answer(report: &str) -> Reply<Report> {
        let provider = "simulated-\u{1b}[31msnp".to_owned();
        Reply::Ok(Report { provider, report: report.to_owned(), certificates: String::new() })
    }

    #[test]
    fn the_bytes_go_to_the_file_and_the_rest_is_harmless_for_a_terminal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let text = report(&answer("00ff10"), &["--output", &path, "--json"]).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), [0, 255, 16]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["report"], "00ff10");
        assert!(!text.contains('\u{1b}') && !text.contains("\\u001b"), "{text}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for wrong in ["", "0", "xy"] {
            assert!(report(&answer(wrong), &["--json"]).unwrap_err().contains("can't be read"), "{wrong}");
        }
        let refusal = Reply::Error { fault: Fault::Unavailable, message: "no key".into() };
        assert_eq!(report(&refusal, &["--json"]), Err("no key".to_owned()));
    }
}
