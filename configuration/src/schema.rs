//! What is known about the keys besides their types: names and documentation, taken from the doc comments.

/// One table of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SectionDoc {
    pub name: &'static str,
    pub about: &'static [&'static str],
    pub keys: &'static [KeyDoc],
}

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyDoc {
    pub name: &'static str,
    pub about: &'static [&'static str],
    /// What values are allowed, in words.
    pub allowed: fn() -> String,
}

/// A type that a key can have.
pub(crate) trait Allowed {
    /// What values are allowed, in words.
    fn allowed() -> String;
}

impl Allowed for bool {
    fn allowed() -> String {
        "true or false".into()
    }
}

/// Declares one table: the type with its serde attributes, the defaults, and the documentation as data, all from
/// one place.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        struct $name:ident = $table:literal {
            $( $(#[doc = $key_about:literal])+ $key:ident: $kind:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[doc = $key_about])+ pub $key: $kind, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl $name {
            pub(crate) const DOC: $crate::schema::SectionDoc = $crate::schema::SectionDoc {
                name: $table,
                about: &[$($about),+],
                keys: &[$(
                    $crate::schema::KeyDoc {
                        name: stringify!($key),
                        about: &[$($key_about),+],
                        allowed: <$kind as $crate::schema::Allowed>::allowed,
                    },
                )+],
            };
        }
    };
}

pub(crate) use section;
