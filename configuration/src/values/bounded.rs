//! Whole numbers with a unit and a range that belongs to the type.

use crate::schema::Allowed;

/// A number outside the range of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number{unit} from {min} to {max}, not {found}")]
pub struct OutOfRange {
    /// What the file says.
    pub found: i64,
    /// Smallest allowed value.
    pub min: u32,
    /// Largest allowed value.
    pub max: u32,
    unit: &'static str,
}

macro_rules! bounded {
    ($(#[doc = $about:literal])+ $name:ident, $unit:literal) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
        #[serde(try_from = "i64", into = "u32")]
        pub struct $name<const MIN: u32, const MAX: u32>(pub(crate) u32);

        impl<const MIN: u32, const MAX: u32> $name<MIN, MAX> {
            /// The number, within `MIN` and `MAX`.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl<const MIN: u32, const MAX: u32> TryFrom<i64> for $name<MIN, MAX> {
            type Error = OutOfRange;

            fn try_from(found: i64) -> Result<Self, OutOfRange> {
                match u32::try_from(found) {
                    Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
                    _ => Err(OutOfRange { found, min: MIN, max: MAX, unit: $unit }),
                }
            }
        }

        impl<const MIN: u32, const MAX: u32> From<$name<MIN, MAX>> for u32 {
            fn from(value: $name<MIN, MAX>) -> u32 {
                value.0
            }
        }

        impl<const MIN: u32, const MAX: u32> std::fmt::Display for $name<MIN, MAX> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<const MIN: u32, const MAX: u32> Allowed for $name<MIN, MAX> {
            fn allowed() -> String {
                format!("a whole number{} from {MIN} to {MAX}", $unit)
            }
        }
    };
}

bounded! {
    /// A plain number from `MIN` to `MAX`.
    Count, ""
}
bounded! {
    /// A size of `MIN` to `MAX` MiB.
    Mebibytes, " of MiB"
}
bounded! {
    /// A size of `MIN` to `MAX` KiB.
    Kibibytes, " of KiB"
}
bounded! {
    /// A time of `MIN` to `MAX` seconds.
    Seconds, " of seconds"
}

impl<const MIN: u32, const MAX: u32> Mebibytes<MIN, MAX> {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 20
    }
}

impl<const MIN: u32, const MAX: u32> Kibibytes<MIN, MAX> {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 10
    }
}

impl<const MIN: u32, const MAX: u32> Seconds<MIN, MAX> {
    /// The time as a [`std::time::Duration`].
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0 as u64)
    }
}
