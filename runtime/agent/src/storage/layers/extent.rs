//! A piece of a disk.

use crate::error::{Failure, Reply};

/// Bytes of a sector, in which the kernel counts for every disk.
pub const SECTOR: u64 = 512;

/// More layers than an overlay takes.
const MAX_EXTENTS: usize = 200;

/// A piece of a disk, in sectors, whose end in bytes fits 63 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    start: u64,
    length: u64,
}

impl Extent {
    fn parse(text: &str) -> Option<Self> {
        let (start, length) = text.split_once(':')?;
        let (start, length): (u64, u64) = (start.parse().ok()?, length.parse().ok()?);
        let end = start.checked_add(length)?.checked_mul(SECTOR)?;
        (length > 0 && i64::try_from(end).is_ok()).then_some(Self { start, length })
    }

    /// The first sector after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Its first byte.
    pub fn start_bytes(&self) -> i64 {
        i64::try_from(self.start.saturating_mul(SECTOR)).unwrap_or(i64::MAX)
    }

    /// Its length in bytes.
    pub fn length_bytes(&self) -> i64 {
        i64::try_from(self.length.saturating_mul(SECTOR)).unwrap_or(i64::MAX)
    }
}

/// The extents in options like `extent=<first sector>:<sectors>`, bottom layer first.
pub fn parse_all(options: &[String]) -> Reply<Vec<Extent>> {
    if options.is_empty() || options.len() > MAX_EXTENTS {
        return Err(Failure::invalid(format!("{} layers", options.len())));
    }
    let parse = |option: &String| {
        option
            .strip_prefix("extent=")
            .and_then(Extent::parse)
            .ok_or_else(|| Failure::invalid(format!("{option:?} is not extent=<first sector>:<sectors>")))
    };
    options.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("extent=0:8", true)]
    #[case("extent=8:4096", true)]
    #[case("extent=8:0", false)]
    #[case("extent=8", false)]
    #[case("extent=-1:8", false)]
    #[case("extent=18446744073709551615:8", false)]
    #[case("extent=36028797018963967:8", false)]
    #[case("root=0:8", false)]
    fn extents_are_whole_and_within_what_the_kernel_counts(#[case] option: &str, #[case] good: bool) {
        assert_eq!(parse_all(&[option.to_owned()]).is_ok(), good);
    }

    #[test]
    fn no_layers_are_no_root() {
        assert!(parse_all(&[]).is_err());
    }
}
