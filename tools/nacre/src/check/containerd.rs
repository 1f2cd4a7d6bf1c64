//! containerd, and whether its configuration knows us.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Finding;
use super::tools::first_line;

/// The runtime type that makes containerd start our shim.
const RUNTIME: &str = "io.containerd.nacre.v2";

/// The oldest version that nacre is tested with.
const OLDEST: (u32, u32) = (1, 7);

/// The program, and the runtime handler for pods.
pub fn findings(configuration: Option<&Path>) -> Vec<Finding> {
    let Some(line) = first_line("containerd", "--version") else {
        return vec![Finding::missing("containerd", "not found", "install containerd 1.7 or later")];
    };
    let version = version(&line);
    vec![judge_version(&line, version), judge_handler(version, dump(configuration).as_deref())]
}

/// The numbers in `containerd github.com/containerd/containerd v1.7.24 …`; Debian leaves out the `v`.
fn version(line: &str) -> Option<(u32, u32)> {
    line.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        let minor = rest.split(|character: char| !character.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn judge_version(line: &str, version: Option<(u32, u32)>) -> Finding {
    let name = "containerd";
    match version {
        Some(version) if version >= OLDEST => {
            let word = line.split_whitespace().find(|word| word.contains('.') && !word.contains('/'));
            Finding::ok(name, word.unwrap_or(line))
        }
        Some((major, minor)) => {
            Finding::missing(name, format!("{major}.{minor}"), "install containerd 1.7 or later")
        }
        None => Finding::ok(name, line).but("cannot tell its version; 1.7 or later is needed"),
    }
}

/// containerd's own merged view of its configuration.
fn dump(configuration: Option<&Path>) -> Option<String> {
    let mut command = Command::new("containerd");
    if let Some(path) = configuration {
        command.arg("--config").arg(path);
    }
    let output = command.args(["config", "dump"]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn judge_handler(version: Option<(u32, u32)>, dump: Option<&str>) -> Finding {
    let name = "handler for pods";
    let snippet = match version {
        Some((major, _)) if major >= 2 => "containerd-2.toml",
        _ => "containerd-1.7.toml",
    };
    let to_do = format!(
        "add configuration/containerd/{snippet} to containerd's configuration and restart containerd"
    );
    let Some(tree) = dump.and_then(|text| text.parse::<toml::Table>().ok()) else {
        return Finding::missing(
            name,
            "`containerd config dump` failed",
            "correct containerd's configuration",
        );
    };
    let handlers: Vec<String> = handlers(&tree).iter().map(|name| format!("{name:?}")).collect();
    if handlers.is_empty() {
        return Finding::missing(name, format!("no runtime with runtime_type {RUNTIME:?}"), to_do);
    }
    let verb = if handlers.len() == 1 { "runs" } else { "run" };
    Finding::ok(name, format!("{} {verb} {RUNTIME}", handlers.join(", ")))
}

/// The handlers that are listed in the configuration of the plugin that has them.
pub fn runtimes<'a>(tree: &'a toml::Table, plugin: &str) -> Option<&'a toml::Table> {
    tree.get("plugins")?.get(plugin)?.get("containerd")?.get("runtimes")?.as_table()
}

/// The names of the handlers that are ours, in a configuration of version 2 or 3.
pub fn handlers(tree: &toml::Table) -> Vec<&str> {
    let cri = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
    let lists = cri.into_iter().filter_map(|plugin| runtimes(tree, plugin));
    lists
        .flatten()
        .filter(|(_, runtime)| runtime.get("runtime_type").and_then(toml::Value::as_str) == Some(RUNTIME))
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;
    use rstest::rstest;

    #[rstest]
    #[case("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1", Some((1, 7)))]
    #[case("containerd github.com/containerd/containerd v2.1.4 75cb2b7193e4", Some((2, 1)))]
    #[case("containerd github.com/containerd/containerd/v2 v2.0.0-rc.3 abc", Some((2, 0)))]
    #[case("containerd", None)]
    fn versions_are_read(#[case] line: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(version(line), expected);
    }

    #[test]
    fn an_old_containerd_is_not_enough() {
        let line = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3";
        assert_eq!(judge_version(line, version(line)).state, State::Missing);
    }

    #[rstest]
    #[case(include_str!("../../../../configuration/containerd/containerd-1.7.toml"), Some((1, 7)))]
    #[case(include_str!("../../../../configuration/containerd/containerd-2.toml"), Some((2, 1)))]
    fn our_snippets_are_recognised(#[case] snippet: &str, #[case] version: Option<(u32, u32)>) {
        let finding = judge_handler(version, Some(snippet));
        assert_eq!(
            (finding.state, finding.found.as_str()),
            (State::Ok, "\"nacre\" runs io.containerd.nacre.v2")
        );
    }

    #[rstest]
    #[case((1, 7), "containerd-1.7.toml")]
    #[case((2, 1), "containerd-2.toml")]
    fn the_right_snippet_is_named(#[case] version: (u32, u32), #[case] expected: &str) {
        let finding = judge_handler(Some(version), Some("version = 2"));
        assert!(finding.to_do.is_some_and(|to_do| to_do.contains(expected)));
    }
}
