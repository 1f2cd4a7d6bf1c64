//! Conversions between the OCI types of `oci_spec` and the messages of [`crate::oci`], both ways by `TryFrom`.
//!
//! Protocol buffers have no unset scalars, so an unset field and its empty value are the same on the wire: empty
//! lists, texts and maps come back as `None`, and so does a zero where OCI gives zero no meaning of its own.
//! What the messages have no field for is refused by name rather than dropped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

mod linux;
mod process;
mod resources;
mod seccomp;
mod spec;
#[cfg(test)]
mod tests;

/// Why a specification can't be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The messages have no field for something that is set.
    #[error("{field} can't be passed to the agent")]
    NotCarried {
        /// The OCI name of the field.
        field: &'static str,
    },
    /// A path or text is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The OCI name of the field.
        field: &'static str,
    },
    /// A name that OCI does not know.
    #[error("{field} has the unknown value {value:?}")]
    UnknownName {
        /// The OCI name of the field.
        field: &'static str,
        /// The name as received.
        value: String,
    },
    /// A number that does not fit the field on the other side.
    #[error("{field} is out of range: {value}")]
    OutOfRange {
        /// The OCI name of the field.
        field: &'static str,
        /// The number.
        value: i128,
    },
    /// A part that must be there is missing.
    #[error("{field} is missing")]
    Missing {
        /// The OCI name of the field.
        field: &'static str,
    },
}

type Result<T> = std::result::Result<T, ConvertError>;

/// The name of a unit variant in OCI's JSON.
fn name<T: Serialize>(field: &'static str, value: &T) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(ConvertError::NotCarried { field }),
    }
}

/// The unit variant that has this name in OCI's JSON.
fn named<T: DeserializeOwned>(field: &'static str, name: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned()))
        .map_err(|_| ConvertError::UnknownName { field, value: name.to_owned() })
}

fn number<A, B>(field: &'static str, value: A) -> Result<B>
where
    A: Copy + Into<i128>,
    B: TryFrom<A>,
{
    B::try_from(value).map_err(|_| ConvertError::OutOfRange { field, value: value.into() })
}

fn path_text(field: &'static str, path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or(ConvertError::NotUtf8 { field })
}

fn optional_path_text(field: &'static str, path: Option<&PathBuf>) -> Result<String> {
    path.map_or(Ok(String::new()), |path| path_text(field, path))
}

/// What a builder of `oci_spec` made, which fails only for a missing part.
fn built<T, E>(field: &'static str, made: std::result::Result<T, E>) -> Result<T> {
    made.map_err(|_| ConvertError::Missing { field })
}

fn refuse_if(set: bool, field: &'static str) -> Result<()> {
    if set { Err(ConvertError::NotCarried { field }) } else { Ok(()) }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn path(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| value.into())
}

fn list<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn map(values: &HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!values.is_empty()).then(|| values.clone())
}

fn flag(value: bool) -> Option<bool> {
    value.then_some(true)
}

fn nonzero<T: Copy + Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// Converts each element of an optional list; an absent one is empty.
fn each<'a, A: 'a, B: TryFrom<&'a A, Error = ConvertError>>(values: Option<&'a Vec<A>>) -> Result<Vec<B>> {
    values.into_iter().flatten().map(B::try_from).collect()
}

/// Converts each element of a list; an empty one is absent.
fn each_if_any<'a, A: 'a, B: TryFrom<&'a A, Error = ConvertError>>(
    values: &'a [A],
) -> Result<Option<Vec<B>>> {
    if values.is_empty() { Ok(None) } else { values.iter().map(B::try_from).collect::<Result<_>>().map(Some) }
}

/// Converts an optional part into an optional message.
fn message<'a, A: 'a, B: TryFrom<&'a A, Error = ConvertError>>(
    value: Option<&'a A>,
) -> Result<protobuf::MessageField<B>> {
    Ok(protobuf::MessageField::from_option(value.map(B::try_from).transpose()?))
}

/// Converts an optional message into an optional part.
fn part<'a, A, B: TryFrom<&'a A, Error = ConvertError>>(
    value: &'a protobuf::MessageField<A>,
) -> Result<Option<B>> {
    value.as_ref().map(B::try_from).transpose()
}
