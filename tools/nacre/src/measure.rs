//! `nacre measure`: the reference values of confidential guests.

mod explain;
mod reference;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use nacre_configuration::Loaded;
use nacre_launch::{LaunchPlan, RuntimeMeasurements, dump};
use serde::Serialize;

use crate::table;
pub use reference::{Error, Reference, TeeName, Wanted, references};

/// Computes from the configured stage0, kernel, initrd and command line, with the code by which the VMM launches. Memory
/// is measured too: without --memory-mib it is that of a pod without a memory limit
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Lists each range of pages and each CPU state, with kind, address, length and hash
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Writes the pages and manifest.json, a list in launch order of {gpa, len, kind, file}, into this folder; with
    /// several sizes, into one folder in it for each: vcpus-N, or vcpus-N-memory-MIB
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Prints JSON: a list of {tee, vcpus, measurement, measured_bytes, pages}; with --memory-mib also memory_mib, of TDX
    /// also rtmr1 and rtmr2
    #[arg(long)]
    json: bool,
}

/// A line of the table, for programs.
#[derive(Debug, Serialize)]
struct Row {
    tee: TeeName,
    vcpus: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u32>,
    measurement: String,
    measured_bytes: u64,
    pages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr2: Option<String>,
}

/// The text to print.
///
/// # Errors
/// The configuration or one of its files is not what it should be, or the dump can't be written.
pub fn run(arguments: &Arguments) -> Result<String, Error> {
    let loaded = match &arguments.wanted.config {
        Some(path) => Loaded::load_from(path),
        None => Loaded::load(),
    };
    let references = references(&loaded?.configuration, &arguments.wanted)?;
    if let Some(folder) = &arguments.dump {
        for reference in &references {
            let own = folder_of(reference, &arguments.wanted);
            let folder = if references.len() == 1 { folder.clone() } else { folder.join(own) };
            write(&reference.plan, &folder)?;
        }
    }
    Ok(match (arguments.json, arguments.explain) {
        (true, _) => json(&references, &arguments.wanted),
        (false, true) => references.iter().map(explain::text).collect::<Vec<_>>().join("\n"),
        (false, false) => rows(&references),
    })
}

fn folder_of(reference: &Reference, wanted: &Wanted) -> String {
    let Reference { vcpus, memory_mib, .. } = reference;
    if wanted.memory_mib.is_empty() {
        return format!("vcpus-{vcpus}");
    }
    format!("vcpus-{vcpus}-memory-{memory_mib}")
}

fn write(plan: &LaunchPlan, folder: &Path) -> Result<(), Error> {
    Ok(dump::write(plan, folder)?)
}

fn rows(references: &[Reference]) -> String {
    let title = ["tee", "vCPUs", "MiB", "measured", "pages", "measurement"].map(str::to_owned);
    let row = |reference: &Reference| {
        let Reference { tee, vcpus, memory_mib, plan, .. } = reference;
        Some([
            tee.to_string(),
            vcpus.to_string(),
            memory_mib.to_string(),
            plan.measured_bytes().to_string(),
            plan.page_count().to_string(),
            plan.measurement().to_string(),
        ])
    };
    let rows: Vec<_> = [Some(title)].into_iter().chain(references.iter().map(row)).collect();
    let mut text = table::lay_out(&rows);
    if let Some(RuntimeMeasurements { rtmr1, rtmr2 }) =
        references.iter().find_map(|reference| reference.runtime)
    {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nRTMR1 {rtmr1}\nRTMR2 {rtmr2}\n");
    }
    text
}

fn json(references: &[Reference], wanted: &Wanted) -> String {
    let row = |reference: &Reference| Row {
        tee: reference.tee,
        vcpus: reference.vcpus,
        memory_mib: (!wanted.memory_mib.is_empty()).then_some(reference.memory_mib),
        measurement: reference.plan.measurement().to_string(),
        measured_bytes: reference.plan.measured_bytes(),
        pages: reference.plan.page_count(),
        rtmr1: reference.runtime.map(|runtime| runtime.rtmr1.to_string()),
        rtmr2: reference.runtime.map(|runtime| runtime.rtmr2.to_string()),
    };
    let rows: Vec<Row> = references.iter().map(row).collect();
    serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
}

#[cfg(test)]
pub mod tests;
