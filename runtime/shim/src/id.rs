//! Names that containerd gives.

use std::fmt;

use crate::error::TaskError;

/// The longest name that containerd gives out.
const LONGEST: usize = 76;

/// The name of a container, a process or a namespace: safe as one part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Takes a name: letters, digits, `_`, `.` and `-`, the first one a letter or a digit.
    ///
    /// # Errors
    /// Anything else, such as a name with a slash.
    pub fn new(name: &str) -> Result<Self, TaskError> {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if first && rest && name.len() <= LONGEST {
            Ok(Self(name.into()))
        } else {
            Err(TaskError::BadId(name.into()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("web", true)]
    #[case("k8s.io", true)]
    #[case("0", true)]
    #[case("", false)]
    #[case("..", false)]
    #[case("a/b", false)]
    #[case("-a", false)]
    fn a_name_is_safe_in_a_path(#[case] name: &str, #[case] good: bool) {
        assert_eq!(Id::new(name).is_ok(), good);
    }
}
