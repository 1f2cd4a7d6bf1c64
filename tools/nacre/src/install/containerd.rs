//! The handler for pods in containerd's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use super::{InstallError, write};
use crate::check::{handlers, runtimes};

const CONFIGURATION: &str = "etc/containerd/config.toml";
const DROP_IN: &str = "etc/containerd/conf.d/nacre.toml";
/// Around what was appended.
const BEGIN: &str = "# >>> nacre (made by `nacre install`; `nacre uninstall` removes it)\n";
const END: &str = "# <<< nacre\n";
/// containerd's plugin with the runtimes, by the version of its configuration.
const PLUGINS: [(i64, &str); 2] = [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")];

/// Adds the handler unless it is there. True if that changed something.
///
/// # Errors
/// The configuration can't be read, or can't be changed without knowing more.
pub fn add_handler(root: &Path) -> Result<bool, InstallError> {
    let (path, drop_in) = (root.join(CONFIGURATION), root.join(DROP_IN));
    let refuse = |why: &str| InstallError::Containerd { path: path.clone(), why: why.to_owned() };
    let text = read(&path)?;
    let tree = parse(&path, &text)?;
    if has_ours(&tree) || parse(&drop_in, &read(&drop_in)?).is_ok_and(|tree| has_ours(&tree)) {
        return Ok(false);
    }
    let version = match tree.get("version").and_then(toml::Value::as_integer) {
        // Read by containerd 1.7 and 2.x.
        None if text.trim().is_empty() => 2,
        Some(version) => version,
        None => {
            return Err(refuse("it has no version, which means 1; migrate it: containerd config migrate"));
        }
    };
    let Some((_, plugin)) = PLUGINS.iter().find(|(known, _)| *known == version) else {
        return Err(refuse("its version is neither 2 nor 3"));
    };
    if version == 3 && imports_drop_ins(&tree) {
        write(&drop_in, &format!("version = 3\n\n{}", block(plugin, true)))?;
        return Ok(true);
    }
    // Where runtimes are listed, the built-in list, which is runc alone, no longer counts in containerd 1.7.
    let has_runc = runtimes(&tree, plugin).is_some_and(|runtimes| runtimes.contains_key("runc"));
    let head = if text.trim().is_empty() { "version = 2\n".to_owned() } else { text };
    let line_end = if head.ends_with('\n') { "" } else { "\n" };
    let changed = format!("{head}{line_end}\n{BEGIN}{}{END}", block(plugin, has_runc || version == 3));
    // A table that is written in another form can't be added to at the end.
    match changed.parse::<toml::Table>() {
        Ok(tree) if has_ours(&tree) => write(&path, &changed)?,
        _ => {
            return Err(refuse(
                "its runtimes are written as one value, or \"nacre\" is another one there; add the handler \"nacre\" by hand",
            ));
        }
    }
    Ok(true)
}

/// Removes what [`add_handler`] added. True if that changed something.
///
/// # Errors
/// A file can't be read or written.
pub fn remove_handler(root: &Path) -> Result<bool, InstallError> {
    let (path, drop_in) = (root.join(CONFIGURATION), root.join(DROP_IN));
    let mut changed = false;
    if drop_in.exists() {
        fs::remove_file(&drop_in).map_err(InstallError::file("can't remove", &drop_in))?;
        changed = true;
    }
    let text = read(&path)?;
    if let Some((before, rest)) = text.split_once(BEGIN)
        && let Some((_, after)) = rest.split_once(END)
    {
        let before =
            before.strip_suffix("\n\n").map_or_else(|| before.to_owned(), |head| format!("{head}\n"));
        write(&path, &format!("{before}{after}"))?;
        changed = true;
    }
    Ok(changed)
}

/// Whether the handler that the `RuntimeClass` names is there and ours.
fn has_ours(tree: &toml::Table) -> bool {
    handlers(tree).contains(&"nacre")
}

fn read(path: &PathBuf) -> Result<String, InstallError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(InstallError::file("can't read", path)),
    }
}

fn parse(path: &Path, text: &str) -> Result<toml::Table, InstallError> {
    text.parse().map_err(|error: toml::de::Error| InstallError::Containerd {
        path: path.to_owned(),
        why: format!("it is no TOML: {}", error.message()),
    })
}

fn imports_drop_ins(tree: &toml::Table) -> bool {
    let imports = tree.get("imports").and_then(toml::Value::as_array);
    imports
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .any(|path| path == "/etc/containerd/conf.d/*.toml")
}

fn block(plugin: &str, has_runc: bool) -> String {
    let runtimes = format!("[plugins.\"{plugin}\".containerd.runtimes");
    let ours = format!(
        "{runtimes}.nacre]\nruntime_type = \"io.containerd.nacre.v2\"\nprivileged_without_host_devices = true\n"
    );
    match has_runc {
        true => ours,
        false => format!("{ours}{runtimes}.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"),
    }
}
