//! Fragments of a kernel configuration: what we ask of Kconfig, and which of it Kconfig did not grant.
//!
//! Kconfig drops without a word what a dependency forbids, and turns on what another option selects. So each line
//! of a fragment is looked for in the result, those that turn something off too.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::error::Error;

/// One line of a fragment: a symbol and the value it must have, `n` for "is not set".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    fragment: String,
    line: usize,
    symbol: String,
    value: String,
}

impl Wish {
    /// As `.config` says it.
    fn text(&self) -> String {
        written(&self.symbol, &self.value)
    }
}

/// A wish that the result does not have, and what it has instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    wish: Wish,
    instead: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wish { fragment, line, .. } = &self.wish;
        write!(to, "{fragment}:{line}: {} (the result: {})", self.wish.text(), self.instead)
    }
}

/// Reads the fragment `<folder>/<name>.config`.
///
/// # Errors
/// It can't be read, or a line is neither a setting nor a comment.
pub fn read(folder: &Path, name: &str) -> Result<Vec<Wish>, Error> {
    let path = folder.join(format!("{name}.config"));
    let text = fs::read_to_string(&path).map_err(Error::file("can't read the fragment", &path))?;
    parse(&format!("{name}.config"), &text)
}

/// Reads a fragment's text; `fragment` names it in messages.
///
/// # Errors
/// A line is neither a setting nor a comment.
pub fn parse(fragment: &str, text: &str) -> Result<Vec<Wish>, Error> {
    let mut wishes = Vec::new();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if let Some((symbol, value)) = setting(content) {
            wishes.push(Wish { fragment: fragment.into(), line, symbol: symbol.into(), value: value.into() });
        } else if !(content.is_empty() || content.starts_with("# ") && !content.starts_with("# CONFIG_")) {
            return Err(Error::Task(format!(
                "{fragment}:{line}: `{content}` is neither CONFIG_NAME=value, nor # CONFIG_NAME is not set, nor a comment"
            )));
        }
    }
    Ok(wishes)
}

/// The symbol and value of a line of a fragment or of `.config`.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (symbol, value) = match line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        Some(symbol) => (symbol, "n"),
        None => line.split_once('=')?,
    };
    let name = symbol.strip_prefix("CONFIG_")?;
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (valid && !value.is_empty()).then_some((symbol, value))
}

fn written(symbol: &str, value: &str) -> String {
    if value == "n" { format!("# {symbol} is not set") } else { format!("{symbol}={value}") }
}

/// One list out of several fragments: a later fragment's word on a symbol replaces an earlier one's.
///
/// # Errors
/// One fragment names a symbol twice.
pub fn merge(fragments: Vec<Vec<Wish>>) -> Result<Vec<Wish>, Error> {
    let mut merged: Vec<Wish> = Vec::new();
    for wish in fragments.into_iter().flatten() {
        match merged.iter_mut().find(|earlier| earlier.symbol == wish.symbol) {
            Some(earlier) if earlier.fragment == wish.fragment => {
                return Err(Error::Task(format!(
                    "{}:{}: {} is already in line {}",
                    wish.fragment, wish.line, wish.symbol, earlier.line
                )));
            }
            Some(earlier) => *earlier = wish,
            None => merged.push(wish),
        }
    }
    Ok(merged)
}

/// The wishes as a file for `KCONFIG_ALLCONFIG`.
pub fn render(wishes: &[Wish]) -> String {
    wishes.iter().map(|wish| wish.text() + "\n").collect()
}

/// Compares the wishes with the finished `.config`.
///
/// # Errors
/// Some did not survive: the message names each with its fragment and line.
pub fn check(wishes: &[Wish], result: &str) -> Result<(), Error> {
    let lost = lost(wishes, result);
    if lost.is_empty() {
        return Ok(());
    }
    let lines: String = lost.iter().map(|lost| format!("\n  {lost}")).collect();
    Err(Error::Task(format!("{} lines of the guest kernel's fragments did not survive:{lines}", lost.len())))
}

fn lost(wishes: &[Wish], result: &str) -> Vec<Lost> {
    let has: HashMap<&str, &str> = result.lines().filter_map(setting).collect();
    wishes
        .iter()
        .filter_map(|wish| {
            // A symbol that does not appear is off, and can't be turned on by anybody.
            let value = has.get(wish.symbol.as_str());
            (*value.unwrap_or(&"n") != wish.value).then(|| Lost {
                wish: wish.clone(),
                instead: value
                    .map_or_else(|| "no such option here".into(), |value| written(&wish.symbol, value)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str =
        "# comment\nCONFIG_SMP=y\nCONFIG_NR_CPUS=64\n# CONFIG_PCI is not set\nCONFIG_ACPI=y\n";

    fn complaint(fragments: &[(&str, &str)]) -> String {
        let fragments = fragments.iter().map(|(name, text)| parse(name, text)).collect::<Result<_, _>>();
        let result = fragments.and_then(merge).and_then(|wishes| check(&wishes, RESULT));
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_survived_is_not_named() {
        let base = "# A comment.\n\nCONFIG_SMP=y\nCONFIG_NR_CPUS=64\n# CONFIG_PCI is not set\n# CONFIG_USB is not set\n";
        assert_eq!(complaint(&[("base.config", base)]), "");
    }

    #[test]
    fn each_lost_line_is_named_with_its_place() {
        let base =
            "CONFIG_SMP=y\nCONFIG_NR_CPUS=256\nCONFIG_PCI=y\n# CONFIG_ACPI is not set\nCONFIG_NOBODY=y\n";
        assert_eq!(
            complaint(&[("base.config", base)]),
            "4 lines of the guest kernel's fragments did not survive:\
             \n  base.config:2: CONFIG_NR_CPUS=256 (the result: CONFIG_NR_CPUS=64)\
             \n  base.config:3: CONFIG_PCI=y (the result: # CONFIG_PCI is not set)\
             \n  base.config:4: # CONFIG_ACPI is not set (the result: CONFIG_ACPI=y)\
             \n  base.config:5: CONFIG_NOBODY=y (the result: no such option here)"
        );
    }

    #[test]
    fn a_later_fragment_overrides_an_earlier_one() {
        assert_eq!(
            complaint(&[("base.config", "# CONFIG_ACPI is not set\n"), ("tdx.config", "CONFIG_ACPI=y\n")]),
            ""
        );
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused() {
        for line in
            ["CONFIG_SMP = y", "CONFIG_SMP=", "SMP=y", "#CONFIG_PCI is not set", "# CONFIG_PCI is unset"]
        {
            assert!(complaint(&[("base.config", line)]).starts_with("base.config:1: `"), "{line}");
        }
    }

    #[test]
    fn a_symbol_twice_in_one_fragment_is_refused() {
        let complaint = complaint(&[("base.config", "CONFIG_SMP=y\n# CONFIG_SMP is not set\n")]);
        assert_eq!(complaint, "base.config:2: CONFIG_SMP is already in line 1");
    }
}
