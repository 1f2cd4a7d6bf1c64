//! stage0's image: a flat binary that ends at 4 GiB.

use nacre_stage0_abi::{PAGE_SIZE, layout};
use thiserror::Error;

/// stage0 as it is in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage0Image {
    bytes: Vec<u8>,
    gpa: u64,
}

impl Stage0Image {
    /// The image from a file's bytes.
    ///
    /// # Errors
    /// It can't be an image.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Stage0Error> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Stage0Error::NotPages(len));
        }
        if len > layout::IMAGE_LIMIT {
            return Err(Stage0Error::TooLarge(len));
        }
        if bytes.iter().rev().take(16).all(|byte| *byte == 0) {
            return Err(Stage0Error::NoResetVector);
        }
        Ok(Self { bytes, gpa: layout::IMAGE_END - len })
    }

    /// Where the image begins.
    #[must_use]
    pub const fn gpa(&self) -> u64 {
        self.gpa
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why bytes are no image of stage0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stage0Error {
    /// The length is zero or not a multiple of a page.
    #[error("{0} bytes are not whole pages")]
    NotPages(u64),
    /// It is longer than it may be.
    #[error("{0} bytes, at most {limit} are allowed", limit = layout::IMAGE_LIMIT)]
    TooLarge(u64),
    /// There is nothing at the first instruction's address.
    #[error("no code at the reset vector")]
    NoResetVector,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn an_image_ends_at_four_gib() {
        assert_eq!(Stage0Image::new(vec![0x90; 0x5000]).map(|image| image.gpa()), Ok(0xffff_b000));
    }

    #[rstest]
    #[case(vec![], Stage0Error::NotPages(0))]
    #[case(vec![0x90; 4097], Stage0Error::NotPages(4097))]
    #[case(vec![0x90; 0xd000], Stage0Error::TooLarge(0xd000))]
    #[case(vec![0; 4096], Stage0Error::NoResetVector)]
    fn refuses_what_can_not_be_an_image(#[case] bytes: Vec<u8>, #[case] error: Stage0Error) {
        assert_eq!(Stage0Image::new(bytes), Err(error));
    }
}
