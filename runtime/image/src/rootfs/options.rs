//! The options of an overlay mount.

use super::MountError;

/// What matters of an overlay's options.
#[derive(Debug, Default)]
pub(super) struct OverlayOptions {
    /// As listed: the uppermost first.
    pub lower: Vec<String>,
    pub upper: Option<String>,
    pub read_only: bool,
}

impl OverlayOptions {
    /// Reads options, each a string of its own or several joined with commas; `\` escapes a comma, a colon, itself.
    pub fn parse(options: &[String]) -> Result<Self, MountError> {
        let mut read = Self::default();
        for option in options.iter().flat_map(|option| split(option, ',')) {
            read.take(&option)?;
        }
        Ok(read)
    }

    fn take(&mut self, option: &str) -> Result<(), MountError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("lowerdir", list) => {
                for folder in split(list, ':') {
                    // Two colons in a row announce layers that only hold data for others (metacopy).
                    if folder.is_empty() {
                        return Err(MountError::Option(option.to_owned()));
                    }
                    self.lower.push(unescape(&folder));
                }
            }
            ("upperdir", folder) => self.upper = Some(unescape(folder)),
            ("ro", "") => self.read_only = true,
            // The work folder and how the host's kernel would write the upper layer have no meaning in a guest.
            ("workdir" | "index" | "xino" | "nfs_export" | "uuid" | "fsync", _)
            | ("volatile" | "rw" | "", "") => {}
            ("metacopy" | "redirect_dir", "off" | "nofollow") => {}
            _ => return Err(MountError::Option(option.to_owned())),
        }
        Ok(())
    }
}

/// Splits at `separator` where no `\` stands before it; escapes stay.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}
