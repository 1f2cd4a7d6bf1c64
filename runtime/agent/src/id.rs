//! Names that come from the host and are used in paths.

use std::fmt;
use std::path::{Path, PathBuf};

/// Kata's longest ids have 64 characters; with a prefix and a suffix they still fit a file name.
const MAX_LENGTH: usize = 128;

/// The id of a container, safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The id of a process of a container, safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecId(String);

/// An id that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("id {0:?} is not 1 to 128 ASCII letters, digits, '_', '.' or '-' beginning with a letter or digit")]
pub struct InvalidId(String);

fn check(id: &str) -> Result<String, InvalidId> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let begins_well = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins_well && id.len() <= MAX_LENGTH && id.bytes().all(allowed) {
        Ok(id.to_owned())
    } else {
        let shown: String = id.chars().take(MAX_LENGTH).collect();
        Err(InvalidId(shown))
    }
}

impl ContainerId {
    /// Takes an id from the host.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        check(id).map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The container's own folder.
    pub fn folder(&self) -> PathBuf {
        Path::new(nacre_protocol::CONTAINERS_FOLDER).join(&self.0)
    }
}

impl ExecId {
    /// Takes an id from the host.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        check(id).map(Self)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a")]
    #[case("web-1.2_x")]
    #[case("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
    fn ordinary_ids_are_taken(#[case] id: &str) {
        assert_eq!(ContainerId::parse(id).map(|id| id.to_string()), Ok(id.to_owned()));
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("..")]
    #[case("-x")]
    #[case("a/b")]
    #[case("a b")]
    #[case("é")]
    #[case("a\0b")]
    #[case(&"x".repeat(129))]
    fn ids_that_could_leave_their_folder_are_refused(#[case] id: &str) {
        assert!(ContainerId::parse(id).is_err());
        assert!(ExecId::parse(id).is_err());
    }
}
