//! What a measurement is made of.

use std::fmt::Write;

use nacre_launch::RuntimeMeasurements;

use super::Reference;
use crate::table;

/// A title and a line for each range of pages and each CPU.
pub fn text(reference: &Reference) -> String {
    let Reference { tee, vcpus, memory_mib, plan, runtime } = reference;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{tee}, vCPUs: {vcpus}, memory: {memory_mib} MiB");
    let title = ["", "name", "kind", "address", "length", "SHA-384 of the content"];
    let mut rows = vec![Some(title.map(str::to_owned))];
    for (number, part) in plan.parts().enumerate() {
        let hash = part.hash().map_or_else(|| "the address only".to_owned(), |hash| hash.to_string());
        let (gpa, len) = (format!("{:#x}", part.gpa), format!("{:#x}", part.len()));
        let (number, name) = (number.to_string(), part.name.into_owned());
        rows.push(Some([number, name, part.kind.to_string(), gpa, len, hash]));
    }
    text.push_str(&table::lay_out(&rows));
    if let Some(RuntimeMeasurements { rtmr1, rtmr2 }) = runtime {
        let _ = writeln!(text, "RTMR1 {rtmr1}, by stage0: kernel and initrd");
        let _ = writeln!(text, "RTMR2 {rtmr2}, by stage0: command line");
    }
    let _ = writeln!(text, "measurement {}", plan.measurement());
    text
}
