//! Finds the known key that someone probably meant.

use crate::schema::SectionDoc;

/// The known key nearest to `section.key`, in the same table or, by the same name, in another.
pub(crate) fn key(sections: &[SectionDoc], section: &str, key: &str) -> Option<String> {
    let own = sections.iter().find(|candidate| candidate.name == section)?;
    let elsewhere = sections.iter().find(|candidate| candidate.keys.iter().any(|known| known.name == key));
    if let Some(other) = elsewhere {
        return Some(format!("{}.{key}", other.name));
    }
    nearest(own.keys.iter().map(|known| known.name), key).map(|name| format!("{section}.{name}"))
}

/// The table nearest to `name`, or the table of the key with that name.
pub(crate) fn section(sections: &[SectionDoc], name: &str) -> Option<String> {
    let with_key = sections.iter().find(|candidate| candidate.keys.iter().any(|known| known.name == name));
    match with_key {
        Some(section) => Some(format!("{}.{name}", section.name)),
        None => nearest(sections.iter().map(|known| known.name), name).map(str::to_owned),
    }
}

/// Names that differ in more than half of their letters are no suggestion.
fn nearest<'a>(names: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    names
        .map(|name| (strsim::normalized_damerau_levenshtein(name, wanted), name))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
