//! What to do to a copy so that it becomes what a folder is now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::origin::SWITCH;
use super::walk::{Entry, Kind};

/// What a copy holds: enough to notice a difference.
#[derive(Debug, Default)]
pub struct Manifest(BTreeMap<PathBuf, Mark>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    mode: u32,
    owner: (u32, u32),
    content: [u8; 32],
}

/// Steps in an order in which a reader sees the state before or the state after.
#[derive(Debug, Default)]
pub struct Changes {
    /// First these, in order.
    pub put: Vec<Entry>,
    /// Then these are removed, with what is in them.
    pub remove: Vec<PathBuf>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

impl Manifest {
    /// The steps from what is remembered to `entries`, and the memory of those.
    pub fn change_to(&self, entries: Vec<Entry>) -> (Self, Changes) {
        let mut marks = BTreeMap::new();
        let mut put: BTreeMap<(Turn, PathBuf), Entry> = BTreeMap::new();
        for entry in entries {
            let mark = Mark::of(&entry);
            if self.0.get(&entry.path) != Some(&mark) {
                put.insert((turn(&entry), entry.path.clone()), entry.clone());
            }
            marks.insert(entry.path, mark);
        }
        let is_gone = |path: &Path| self.0.contains_key(path) && !marks.contains_key(path);
        let gone = self.0.keys().filter(|path| is_gone(path) && !path.parent().is_some_and(is_gone));
        let mut remove: Vec<PathBuf> = gone.cloned().collect();
        // What leads somewhere goes before that.
        remove.sort_by_key(|path| is_hidden(path));
        (Self(marks), Changes { put: put.into_values().collect(), remove })
    }
}

/// First what nothing leads to yet, then the link that decides, then what leads to it. A path sorts after its folder.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Content,
    Switch,
    Links,
}

fn turn(entry: &Entry) -> Turn {
    match entry.kind {
        Kind::Link(_) if entry.path == Path::new(SWITCH) => Turn::Switch,
        Kind::Link(_) if !is_hidden(&entry.path) => Turn::Links,
        _ => Turn::Content,
    }
}

fn is_hidden(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(b"..")
}

impl Mark {
    fn of(entry: &Entry) -> Self {
        let mut hash = Sha256::new();
        match &entry.kind {
            Kind::Folder => {}
            Kind::Link(bytes) | Kind::File(bytes) => hash.update(bytes),
        }
        Self { mode: entry.mode, owner: (entry.uid, entry.gid), content: hash.finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        let mode = match kind {
            Kind::Folder => libc::S_IFDIR | 0o755,
            Kind::Link(_) => libc::S_IFLNK | 0o777,
            Kind::File(_) => libc::S_IFREG | 0o644,
        };
        Entry { path: path.into(), mode, uid: 0, gid: 0, kind }
    }

    fn file(path: &str, text: &str) -> Entry {
        entry(path, Kind::File(text.into()))
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, Kind::Link(target.into()))
    }

    fn folder(path: &str) -> Entry {
        entry(path, Kind::Folder)
    }

    fn names(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
        let put = changes.put.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        (put, changes.remove.iter().map(|path| path.to_str().unwrap()).collect())
    }

    #[test]
    fn a_switched_folder_changes_at_its_link() {
        let old = vec![
            folder(""),
            folder("..1"),
            file("..1/gone", "1"),
            file("..1/kept", "1"),
            link("..data", "..1"),
            link("gone", "..data/gone"),
            link("kept", "..data/kept"),
        ];
        let (manifest, first) = Manifest::default().change_to(old);
        assert_eq!(names(&first).0, ["", "..1", "..1/gone", "..1/kept", "..data", "gone", "kept"]);

        let new = vec![
            folder(""),
            folder("..2"),
            link("new", "..data/new"),
            link("..data", "..2"),
            file("..2/new", "2"),
            file("..2/kept", "2"),
            link("kept", "..data/kept"),
        ];
        let (manifest, second) = manifest.change_to(new.clone());
        assert_eq!(
            names(&second),
            (vec!["..2", "..2/kept", "..2/new", "..data", "new"], vec!["gone", "..1"])
        );
        assert!(manifest.change_to(new).1.is_empty());
    }

    #[test]
    fn content_mode_owner_and_kind_are_differences() {
        let (manifest, _) = Manifest::default().change_to(vec![file("f", "a")]);
        for changed in [
            file("f", "b"),
            link("f", "a"),
            Entry { mode: libc::S_IFREG | 0o600, ..file("f", "a") },
            Entry { uid: 7, ..file("f", "a") },
        ] {
            assert_eq!(manifest.change_to(vec![changed]).1.put.len(), 1);
        }
        assert!(manifest.change_to(vec![file("f", "a")]).1.is_empty());
    }
}
