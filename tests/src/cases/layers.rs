//! Images of many layers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, wrong};
use crate::options::RUNC;

pub const TESTS: &[Test] = &[
    Test::new("layers-as-runc", "20 layers with all oddities look as runc shows them, file by file", as_runc),
    Test::new("layers-again", "a second container of the same image is the same", again),
];

const IMAGE: &str = "nacre.test/layers20:1";

/// Files that the image has for sure; fewer mean that the listing itself is wrong.
const FEWEST: usize = 120;

fn as_runc(context: &Context) -> Outcome {
    let wanted = list(&context.with_runtime(RUNC), "runc")?;
    let found = list(context, "a")?;
    compare(&wanted, &found)
}

fn again(context: &Context) -> Outcome {
    let first = list(context, "a")?;
    let second = list(context, "b")?;
    compare(&first, &second)
}

fn list(context: &Context, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let container = context.container(name).image(IMAGE).command(&["nacre-probe", "list-files"]);
    let finished = container.patience(Duration::from_secs(200)).run()?.exited(0)?;
    let split = |line: &str| line.split_once(' ').map(|(path, rest)| (path.to_owned(), rest.to_owned()));
    let mut files: BTreeMap<String, String> = finished.stdout.lines().filter_map(split).collect();
    // The root is the container's own folder, made when it starts.
    files.remove("/");
    check(files.len() >= FEWEST, || format!("only {} files: {}", files.len(), finished.stdout))?;
    Ok(files)
}

fn compare(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Outcome {
    let mut differences = Vec::new();
    for (path, line) in wanted {
        match found.get(path) {
            Some(other) if other == line => {}
            Some(other) => differences.push(format!("{path}\n    found  {other}\n    wanted {line}")),
            None => differences.push(format!("{path} is missing")),
        }
    }
    let extra = found.keys().filter(|path| !wanted.contains_key(*path));
    differences.extend(extra.map(|path| format!("{path} must not be there")));
    if differences.is_empty() { Ok(()) } else { wrong(differences.join("\n")) }
}
