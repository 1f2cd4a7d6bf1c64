//! `nacre config`: the configuration that counts.

use std::fmt::Write;
use std::path::PathBuf;

use nacre_configuration::{LoadError, Loaded, reference};

/// Options of `nacre config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Shows the reference file instead: every key with its documentation and default
    #[arg(long)]
    reference: bool,
    /// Reads this file, with the drop-ins in conf.d beside it
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// The text to print.
pub fn run(arguments: &Arguments) -> Result<String, LoadError> {
    if arguments.reference {
        return Ok(reference::text());
    }
    let loaded = match &arguments.file {
        Some(path) => Loaded::load_from(path)?,
        None => Loaded::load()?,
    };
    Ok(effective(&loaded))
}

/// All keys with their values; what is no default has its place behind it.
fn effective(loaded: &Loaded) -> String {
    let table = toml::Table::try_from(&loaded.configuration).unwrap_or_default();
    let mut text = match loaded.files.is_empty() {
        true => "# No configuration file: everything is as built in.\n".to_owned(),
        false => {
            loaded.files.iter().fold(String::new(), |text, file| text + &format!("# {}\n", file.display()))
        }
    };
    for (section, keys) in &table {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n[{section}]");
        for (key, value) in keys.as_table().into_iter().flatten() {
            let origin = loaded.origins.get(&format!("{section}.{key}"));
            let origin = origin.map(|place| format!("  # {place}")).unwrap_or_default();
            let _ = writeln!(text, "{key} = {value}{origin}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_value_and_the_place_of_those_that_are_set() {
        let folder = tempfile::tempdir().unwrap();
        let (file, drop_in) = (folder.path().join("nacre.toml"), folder.path().join("conf.d/10-big.toml"));
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        std::fs::write(&file, "[vm]\ndefault_vcpus = 2\n").unwrap();
        std::fs::write(&drop_in, "\n[vm]\ndefault_memory_mib = 512\n").unwrap();
        let text = run(&Arguments { reference: false, file: Some(file.clone()) }).unwrap();
        assert!(text.contains(&format!("default_vcpus = 2  # {}:2\n", file.display())), "{text}");
        assert!(text.contains(&format!("default_memory_mib = 512  # {}:3\n", drop_in.display())), "{text}");
        assert!(text.contains("level = \"info\"\n"), "{text}");
        assert!(toml::from_str::<nacre_configuration::Configuration>(&text).is_ok(), "{text}");
    }
}
