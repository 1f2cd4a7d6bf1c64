//! nacre.toml: its keys, their types, loading and validation.
//!
//! [`Configuration::load`] reads `/etc/nacre/nacre.toml` and then the drop-ins `/etc/nacre/conf.d/*.toml` in the
//! order of their names; a later file replaces single keys of an earlier one. No file at all means the defaults.
//! What loads is valid: unknown keys, wrong types and values out of range are errors that name file and line,
//! and the types carry the checks, so that nobody checks a second time.
//!
//! The reference file `nacre.toml` beside this crate is made from the doc comments of the types in [`sections`].
//!
//! ```no_run
//! let configuration = nacre_configuration::Configuration::load()?;
//! println!("kernel: {}", configuration.guest.kernel.display());
//! # Ok::<(), nacre_configuration::LoadError>(())
//! ```

mod error;
mod load;
mod nearest;
pub mod reference;
mod schema;
pub mod sections;
mod source;
pub mod values;

pub use error::{LoadError, Place};
pub use load::{DEFAULT_PATH, Loaded, PATH_VARIABLE};
pub use sections::Configuration;
