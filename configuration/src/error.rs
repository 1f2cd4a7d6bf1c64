//! What can be wrong with the configuration.

use std::fmt;
use std::path::PathBuf;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why the configuration cannot be used. The message names file and line.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or the drop-in folder that is there cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SECURITY: whoever can write the file chooses programs that run as root.
    #[error(
        "{}: others may write it (mode {mode:03o}, owner {owner}); make it `root`'s and run `chmod go-w` on it",
        path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Not TOML, a wrong type, or a value out of range.
    #[error("{place}: {}{message}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Invalid {
        /// Where.
        place: Place,
        /// The key with its table, if it is one key's value that is wrong.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// A key or table that does not exist.
    #[error(
        "{place}: unknown key `{key}`{}",
        nearest.as_ref().map(|nearest| format!(", did you mean `{nearest}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key with its table.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// Two keys that contradict each other.
    #[error("{place}: `{smaller}` is {small}, more than `{larger}`, which is {large}")]
    Above {
        /// Where the later of the two is set.
        place: Place,
        /// The key that must not be above the other.
        smaller: &'static str,
        /// Its value.
        small: u32,
        /// The key that is the limit.
        larger: &'static str,
        /// Its value.
        large: u32,
    },
}
