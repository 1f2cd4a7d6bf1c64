//! How many vCPUs a confidential guest can have: few different numbers, since each has its own measurement.

use nacre_stage0_abi::MAX_VCPUS;
use thiserror::Error;

/// The numbers of vCPUs that guests may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuCounts(Vec<u32>);

impl VcpuCounts {
    /// A list of numbers: ascending, each once, from 1 to [`MAX_VCPUS`].
    ///
    /// # Errors
    /// The list is none of that.
    pub fn new(counts: impl Into<Vec<u32>>) -> Result<Self, VcpusError> {
        let counts = counts.into();
        let possible = counts.iter().all(|count| (1..=MAX_VCPUS).contains(count));
        if counts.is_empty() || !possible || !counts.is_sorted_by(|one, next| one < next) {
            return Err(VcpusError::List(counts));
        }
        Ok(Self(counts))
    }

    /// The smallest number of the list that is enough for `wanted`.
    ///
    /// # Errors
    /// No number of the list is enough.
    pub fn round_up(&self, wanted: u32) -> Result<u32, VcpusError> {
        let largest = || self.0.last().copied().unwrap_or_default();
        let enough = self.0.iter().copied().find(|count| *count >= wanted);
        enough.ok_or_else(|| VcpusError::TooMany { wanted, largest: largest() })
    }

    /// The numbers, smallest first.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl Default for VcpuCounts {
    /// Powers of two up to 32.
    fn default() -> Self {
        Self(vec![1, 2, 4, 8, 16, 32])
    }
}

/// Why a number of vCPUs is not possible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VcpusError {
    /// The list is not what a list must be.
    #[error("numbers of vCPUs must ascend and be from 1 to {MAX_VCPUS}, these do not: {0:?}")]
    List(Vec<u32>),
    /// More than the largest number.
    #[error("{wanted} vCPUs, confidential guests may have {largest}")]
    TooMany {
        /// How many were asked for.
        wanted: u32,
        /// The largest number of the list.
        largest: u32,
    },
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, Ok(1))]
    #[case(1, Ok(1))]
    #[case(3, Ok(4))]
    #[case(32, Ok(32))]
    #[case(33, Err(VcpusError::TooMany { wanted: 33, largest: 32 }))]
    fn rounds_up_to_a_number_of_the_list(#[case] wanted: u32, #[case] expected: Result<u32, VcpusError>) {
        assert_eq!(VcpuCounts::default().round_up(wanted), expected);
    }

    #[rstest]
    #[case(&[])]
    #[case(&[0, 1])]
    #[case(&[1, 1])]
    #[case(&[2, 1])]
    #[case(&[1, 255])]
    fn refuses_a_list_that_is_none(#[case] counts: &[u32]) {
        assert_eq!(VcpuCounts::new(counts), Err(VcpusError::List(counts.to_vec())));
    }
}
