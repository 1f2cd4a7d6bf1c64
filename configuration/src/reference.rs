//! The reference file: every key with its documentation, its range and its default.

use std::fmt::Write;

use crate::sections::{Configuration, SECTIONS};

const HEAD: &str = "\
# The configuration of nacre: every key, with its default. Remove the # before a key to change it.
#
# Installed as /etc/nacre/nacre.toml. Files /etc/nacre/conf.d/*.toml are read after it, in the order of their names;
# a later file replaces single keys. Unknown keys and values out of range are errors: `nacre check` shows them with
# file and line, `nacre config` shows what counts. A pod reads the configuration when it starts.
";

/// The text of the reference file.
#[must_use]
pub fn text() -> String {
    let defaults = toml::Table::try_from(Configuration::default()).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.about);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{}]", section.name);
        for key in section.keys {
            let default = defaults.get(section.name).and_then(|table| table.get(key.name));
            let default = default.map(ToString::to_string).unwrap_or_default();
            text.push('\n');
            comment(&mut text, key.about);
            let _ = writeln!(text, "# ({})", (key.allowed)());
            let _ = writeln!(text, "#{} = {default}", key.name);
        }
    }
    text
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "#{}", line.trim_end());
    }
}
