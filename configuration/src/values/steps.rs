//! Short lists of sizes.

use crate::schema::Allowed;

/// Ascending numbers from `MIN` to `MAX`, to which a size is rounded up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Steps<const MIN: u32, const MAX: u32>(Vec<u32>);

/// A list that is none of steps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be ascending numbers from {min} to {max}, each once, not {found:?}")]
pub struct StepsError {
    /// What the file says.
    pub found: Vec<u32>,
    /// Smallest allowed number.
    pub min: u32,
    /// Largest allowed number.
    pub max: u32,
}

impl<const MIN: u32, const MAX: u32> Steps<MIN, MAX> {
    /// For the defaults, which a test checks.
    pub(crate) fn known(steps: &[u32]) -> Self {
        Self(steps.to_vec())
    }

    /// The smallest number of the list that is not less than `wanted`; `None` if all are.
    #[must_use]
    pub fn round_up(&self, wanted: u64) -> Option<u32> {
        self.0.iter().copied().find(|step| u64::from(*step) >= wanted)
    }

    /// The largest number of the list that is not more than `most`; `None` if all are.
    #[must_use]
    pub fn round_down(&self, most: u32) -> Option<u32> {
        self.0.iter().copied().rfind(|step| *step <= most)
    }

    /// The smallest number.
    #[must_use]
    pub fn smallest(&self) -> u32 {
        self.0.first().copied().unwrap_or(MIN)
    }

    /// The numbers, smallest first.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// The largest number.
    #[must_use]
    pub fn largest(&self) -> u32 {
        self.0.last().copied().unwrap_or(MIN)
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<Vec<u32>> for Steps<MIN, MAX> {
    type Error = StepsError;

    fn try_from(found: Vec<u32>) -> Result<Self, StepsError> {
        let allowed = found.iter().all(|step| (MIN..=MAX).contains(step));
        if found.is_empty() || !allowed || !found.is_sorted_by(|one, next| one < next) {
            return Err(StepsError { found, min: MIN, max: MAX });
        }
        Ok(Self(found))
    }
}

impl<const MIN: u32, const MAX: u32> From<Steps<MIN, MAX>> for Vec<u32> {
    fn from(steps: Steps<MIN, MAX>) -> Self {
        steps.0
    }
}

impl<const MIN: u32, const MAX: u32> Allowed for Steps<MIN, MAX> {
    fn allowed() -> String {
        format!("a list of ascending numbers from {MIN} to {MAX}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_within_the_list() {
        let steps = Steps::<1, 64>::known(&[1, 2, 8]);
        assert_eq!(
            [0, 1, 3, 8, 9].map(|wanted| steps.round_up(wanted)),
            [Some(1), Some(1), Some(8), Some(8), None]
        );
    }

    #[test]
    fn refuses_a_list_that_is_none() {
        for list in [&[][..], &[0, 1], &[1, 1], &[2, 1], &[65]] {
            assert!(Steps::<1, 64>::try_from(list.to_vec()).is_err(), "{list:?}");
        }
    }
}
