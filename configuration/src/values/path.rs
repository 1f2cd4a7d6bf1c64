//! Paths of the node.

use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

use crate::schema::Allowed;

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String")]
pub struct AbsolutePath(PathBuf);

/// A path that a key cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("must be an absolute path, not {0:?}")]
    Relative(String),
    /// It contains `..`, whose meaning depends on symbolic links.
    #[error("must be a path without \"..\", not {0:?}")]
    Upwards(String),
    /// It contains a NUL byte, which no path can.
    #[error("must be a path without NUL bytes, not {0:?}")]
    Nul(String),
}

impl AbsolutePath {
    /// For the defaults, which a test checks.
    pub(crate) fn known(path: &str) -> Self {
        Self(path.into())
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        let path = Path::new(&text);
        if !path.is_absolute() {
            return Err(PathError::Relative(text));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(PathError::Upwards(text));
        }
        if text.contains('\0') {
            return Err(PathError::Nul(text));
        }
        Ok(Self(text.into()))
    }
}

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Allowed for AbsolutePath {
    fn allowed() -> String {
        "an absolute path".into()
    }
}

/// An absolute path, or none: the empty string.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String")]
pub struct OptionalPath(PathBuf);

impl OptionalPath {
    /// The path, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<&Path> {
        Some(self.0.as_path()).filter(|path| !path.as_os_str().is_empty())
    }
}

impl TryFrom<String> for OptionalPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        AbsolutePath::try_from(text).map(|path| Self(path.0))
    }
}

impl Allowed for OptionalPath {
    fn allowed() -> String {
        "an absolute path, or empty for none".into()
    }
}
