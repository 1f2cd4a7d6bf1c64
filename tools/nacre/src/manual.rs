//! Completion for shells, and manual pages, both from the same description of the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use thiserror::Error;

/// Options of `nacre completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArguments {
    /// Which shell
    shell: Shell,
}

/// Options of `nacre manual`.
#[derive(Debug, clap::Args)]
pub struct ManualArguments {
    /// The folder for the pages; it is made when it is missing
    folder: PathBuf,
}

/// A page can't be written.
#[derive(Debug, Error)]
#[error("can't write {}", path.display())]
pub struct ManualError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The script that a shell reads.
pub fn completion(arguments: &CompletionArguments, mut command: clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "nacre", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes one page for the command and one for each of its subcommands; returns their names.
///
/// # Errors
/// A page can't be written.
pub fn manual(arguments: &ManualArguments, command: clap::Command) -> Result<String, ManualError> {
    let folder = &arguments.folder;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ManualError { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    clap_mangen::generate_to(command, folder).map_err(failed(folder))?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Arguments;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_a_page_with_its_exit_codes_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ManualArguments { folder: folder.path().join("man1") };
        manual(&arguments, Arguments::command()).unwrap();
        let complete = |shell| completion(&CompletionArguments { shell }, Arguments::command());
        let scripts = [Shell::Bash, Shell::Zsh, Shell::Fish].map(complete);
        let command = Arguments::command();
        let visible: Vec<_> = command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
        assert!(visible.len() >= 15, "{visible:?}");
        for name in visible.iter().map(|command| command.get_name()) {
            let page = fs::read_to_string(arguments.folder.join(format!("nacre-{name}.1"))).unwrap();
            assert!(page.contains(".TH") && page.contains("Exit status"), "{name}");
            assert!(scripts.iter().all(|script| script.contains(name)), "{name}");
        }
        let page = fs::read_to_string(arguments.folder.join("nacre-ps.1")).unwrap();
        assert!(page.contains("no such pod"), "exit codes are missing: {page}");
    }

    #[test]
    fn what_the_charts_daemon_set_runs_is_understood() {
        for mode in ["install", "uninstall"] {
            let words = ["nacre", mode, "--host-root", "/host", "--stay", "--no-restart"];
            Arguments::try_parse_from(words).unwrap();
        }
    }
}
