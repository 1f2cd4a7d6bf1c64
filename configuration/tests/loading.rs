//! Files and drop-ins, as they lie on a node.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nacre_configuration::{Configuration, LoadError, Loaded};

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with files, each a path in it and a text.
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (path, text) in files {
            std::fs::write(folder.path().join(path), text).unwrap();
            let owned = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(folder.path().join(path), owned).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        Loaded::load_from(&self.path("nacre.toml"))
    }
}

#[test]
fn no_file_at_all_means_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = Loaded::load_from(&folder.path().join("gone/nacre.toml")).unwrap();
    assert_eq!(loaded.configuration, Configuration::default());
    assert!(loaded.files.is_empty() && loaded.origins.is_empty());
}

#[test]
fn drop_ins_replace_single_keys_in_the_order_of_their_names() {
    let folder = Folder::with(&[
        ("nacre.toml", "[vm]\ndefault_vcpus = 2\ndefault_memory_mib = 300\n"),
        ("conf.d/20-second.toml", "[vm]\ndefault_vcpus = 4\n"),
        ("conf.d/10-first.toml", "[vm]\ndefault_vcpus = 3\n[log]\nconsole = true\n"),
        ("conf.d/.hidden.toml", "nonsense"),
        ("conf.d/30-note.txt", "nonsense"),
        ("conf.d/40-old.toml~", "nonsense"),
    ]);
    let loaded = folder.load().unwrap();
    let vm = &loaded.configuration.vm;
    assert_eq!((vm.default_vcpus.get(), vm.default_memory_mib.get()), (4, 300));
    assert!(loaded.configuration.log.console);
    let names = ["nacre.toml", "conf.d/10-first.toml", "conf.d/20-second.toml"];
    assert_eq!(loaded.files, names.map(|name| folder.path(name)));
    let place = &loaded.origins["vm.default_vcpus"];
    assert_eq!((&place.path, place.line), (&folder.path("conf.d/20-second.toml"), 2));
}

#[test]
fn drop_ins_count_without_the_main_file() {
    let folder = Folder::with(&[("conf.d/10.toml", "log.level = \"debug\"\n")]);
    assert_eq!(folder.load().unwrap().files, [folder.path("conf.d/10.toml")]);
}

#[test]
fn a_mistake_in_a_drop_in_names_the_drop_in() {
    let folder = Folder::with(&[("nacre.toml", "[vm]\n"), ("conf.d/10.toml", "\n[vm]\nmax_vcpus = 0\n")]);
    let message = folder.load().unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}:3: vm.max_vcpus: ", folder.path("conf.d/10.toml").display())),
        "{message}"
    );
}

#[test]
fn a_mistake_that_a_later_file_would_hide_is_still_one() {
    let folder =
        Folder::with(&[("nacre.toml", "vm.max_vcpus = 0\n"), ("conf.d/10.toml", "vm.max_vcpus = 5\n")]);
    assert!(folder.load().is_err());
}

#[test]
fn keys_of_two_files_that_contradict_each_other_are_refused() {
    let folder = Folder::with(&[
        ("nacre.toml", "[vm]\ndefault_vcpus = 8\n"),
        ("conf.d/10.toml", "\n\n[vm]\nmax_vcpus = 4\n"),
    ]);
    let expected = format!(
        "{}:4: `vm.default_vcpus` is 8, more than `vm.max_vcpus`, which is 4",
        folder.path("conf.d/10.toml").display()
    );
    assert_eq!(folder.load().unwrap_err().to_string(), expected);
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let folder = Folder::with(&[("nacre.toml", "")]);
    std::fs::set_permissions(folder.path("nacre.toml"), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(folder.load(), Err(LoadError::Writable { mode: 0o666, .. })));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_not_the_defaults() {
    let folder = Folder::with(&[]);
    std::fs::create_dir(folder.path("nacre.toml")).unwrap();
    assert!(matches!(folder.load(), Err(LoadError::Read { .. })));
}
