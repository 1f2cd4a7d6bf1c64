//! nacre.toml: its keys, their types, loading and validation.
