//! Images made by the real mkfs.erofs, mounted, and compared with their folders file by file.

#![allow(clippy::unwrap_used)]

mod tree;

use std::fs::{File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nacre_image::{LayerCache, LayerImage};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tree::Mounted;

/// Says that the running test can't run on this machine, past the test runner's capture; `cargo xtask test` counts
/// such a test as skipped.
fn not_run_here(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "NOT RUN HERE {}: {why}", test.name().unwrap_or("?"));
}

/// The image of a folder, and what holds its cache.
fn convert(layer: &Path) -> (LayerImage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let cache = LayerCache::open(&folder.path().join("cache"), 1 << 40, 2).unwrap();
    let image = cache.layers(&[layer.to_owned()]).unwrap().pop().unwrap();
    (image, folder)
}

fn assert_same(layer: &Path) -> Option<LayerImage> {
    let (image, _folder) = convert(layer);
    let Some(mounted) = Mounted::image(image.file()) else {
        not_run_here("an EROFS image cannot be mounted over a loop device");
        return None;
    };
    assert_eq!(tree::describe(layer), tree::describe(mounted.path()));
    Some(image)
}

fn device(path: &Path, kind: SFlag, major: u64, minor: u64) {
    mknod(path, kind, Mode::from_bits_truncate(0o640), makedev(major, minor)).unwrap();
}

#[test]
fn everything_that_a_layer_can_hold_comes_back_the_same() {
    let layer = tempfile::tempdir().unwrap();
    let at = |name: &str| layer.path().join(name);

    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("small"), "small").unwrap();
    std::fs::write(at("block"), vec![b'b'; 4096]).unwrap();
    std::fs::write(at("big"), (0u32..1_500_000).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::hard_link(at("big"), at("folder/hard link")).unwrap();
    symlink("/somewhere/else", at("link")).unwrap();
    symlink("x".repeat(4000), at("long link")).unwrap();
    std::fs::write(at(&"n".repeat(254)), "a long name").unwrap();
    std::fs::create_dir(at(&"d".repeat(254))).unwrap();

    std::fs::write(at("program"), "").unwrap();
    std::fs::set_permissions(at("program"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    std::fs::set_permissions(at("folder"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(70_000), Some(4_000_000_000)).unwrap();
    std::os::unix::fs::lchown(at("small"), Some(4_000_000_001), Some(70_000)).unwrap();

    device(&at("whiteout"), SFlag::S_IFCHR, 0, 0);
    device(&at("null"), SFlag::S_IFCHR, 1, 3);
    device(&at("disk"), SFlag::S_IFBLK, 259, 300_000);
    device(&at("fifo"), SFlag::S_IFIFO, 0, 0);
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());

    std::fs::create_dir(at("opaque")).unwrap();
    xattr::set(at("opaque"), "trusted.overlay.opaque", b"y").unwrap();
    xattr::set(at("small"), "user.note", b"some text").unwrap();
    xattr::set(at("big"), "user.long", &[7; 2000]).unwrap();
    // CAP_NET_BIND_SERVICE, permitted and effective (VFS_CAP_REVISION_2).
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(at("program"), "security.capability", &capability).unwrap();

    let touch = |name: &str, time| {
        let file = File::options().write(true).open(at(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    touch("empty", UNIX_EPOCH + Duration::new(987_654_321, 123_456_789));
    touch("block", UNIX_EPOCH - Duration::from_secs(600_000_000));
    touch("program", UNIX_EPOCH + Duration::from_secs(7_000_000_000));
    touch("big", UNIX_EPOCH);

    // The description used for comparing must see all this.
    assert!(std::fs::symlink_metadata(at("whiteout")).unwrap().file_type().is_char_device());
    assert!(tree::describe(layer.path()).contains("trusted.overlay.opaque"));
    assert_same(layer.path());
}

#[test]
fn the_longest_names_come_back_or_the_tool_is_named_as_too_old() {
    let (layer, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(layer.path().join("n".repeat(255)), "").unwrap();
    std::fs::create_dir(layer.path().join("d".repeat(255))).unwrap();
    let cache = LayerCache::open(&folder.path().join("cache"), 1 << 40, 2).unwrap();
    match cache.layers(&[layer.path().to_owned()]) {
        Ok(_) => drop(assert_same(layer.path())),
        Err(error) => assert!(error.to_string().contains("255 bytes"), "{error}"),
    }
}

#[test]
fn a_large_file_with_holes_stays_small() {
    let layer = tempfile::tempdir().unwrap();
    let mut file = File::create(layer.path().join("sparse")).unwrap();
    for position in [0, 123_456_789, (1 << 28) - 5] {
        file.seek(SeekFrom::Start(position)).unwrap();
        file.write_all(b"data!").unwrap();
    }
    std::fs::write(layer.path().join("other"), "no holes").unwrap();
    let (image, _folder) = convert(layer.path());
    assert!(image.file().metadata().unwrap().len() < 2 << 20);
    assert_same(layer.path());
}

#[test]
fn a_folder_of_many_files_is_complete() {
    let layer = tempfile::tempdir().unwrap();
    for number in 0..12_000 {
        std::fs::write(layer.path().join(format!("file with a rather long name {number}")), b"").unwrap();
    }
    assert_same(layer.path());
}

#[test]
fn an_empty_layer_has_an_image() {
    let layer = tempfile::tempdir().unwrap();
    assert_same(layer.path());
}

#[test]
fn images_over_each_other_show_what_their_folders_over_each_other_show() {
    let parent = tempfile::tempdir().unwrap();
    let layers = ["bottom", "middle", "top"].map(|name| parent.path().join(name));
    let [bottom, middle, top] = &layers;
    for layer in &layers {
        std::fs::create_dir_all(layer.join("merged")).unwrap();
        std::fs::create_dir_all(layer.join("opaque")).unwrap();
        std::fs::write(layer.join("merged").join(layer.file_name().unwrap()), "here").unwrap();
        std::fs::write(layer.join("opaque").join(layer.file_name().unwrap()), "here").unwrap();
    }
    for name in ["removed", "replaced by folder", "kept"] {
        std::fs::write(bottom.join(name), "bottom").unwrap();
    }
    std::fs::create_dir(bottom.join("removed folder")).unwrap();
    std::fs::write(bottom.join("removed folder/file"), "").unwrap();
    std::fs::create_dir(bottom.join("replaced by file")).unwrap();
    std::fs::hard_link(bottom.join("kept"), bottom.join("merged/hard link")).unwrap();
    device(&middle.join("removed"), SFlag::S_IFCHR, 0, 0);
    device(&middle.join("removed folder"), SFlag::S_IFCHR, 0, 0);
    device(&middle.join("merged/bottom"), SFlag::S_IFCHR, 0, 0);
    xattr::set(middle.join("opaque"), "trusted.overlay.opaque", b"y").unwrap();
    std::fs::create_dir(middle.join("replaced by folder")).unwrap();
    std::fs::write(middle.join("replaced by file"), "middle").unwrap();
    std::fs::write(top.join("removed"), "back again").unwrap();

    let folder = tempfile::tempdir().unwrap();
    let cache = LayerCache::open(&folder.path().join("cache"), 1 << 40, 2).unwrap();
    let images = cache.layers(&layers).unwrap();
    let mounted: Option<Vec<Mounted>> = images.iter().map(|image| Mounted::image(image.file())).collect();
    let folders: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let (Some(mounted), Some(expected)) = (mounted, Mounted::overlay(&folders)) else {
        not_run_here("an overlay or an EROFS image cannot be mounted");
        return;
    };
    let roots: Vec<&Path> = mounted.iter().map(Mounted::path).collect();
    let shown = Mounted::overlay(&roots).unwrap();
    let expected = tree::describe(expected.path());
    assert!(
        expected.contains("replaced by folder mode 4") && !expected.contains("removed folder"),
        "{expected}"
    );
    assert!(!expected.contains("opaque/bottom") && expected.contains("opaque/top"), "{expected}");
    assert_eq!(tree::describe(shown.path()), expected);
}

#[test]
fn the_same_content_makes_the_same_bytes() {
    let folders = tempfile::tempdir().unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let build = |name: &str, order: &[usize]| -> PathBuf {
        let folder = folders.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for number in order {
            let sub = folder.join(format!("folder{number}"));
            std::fs::create_dir(&sub).unwrap();
            for file in order {
                std::fs::write(sub.join(format!("file{file}")), vec![1; number * file * 100]).unwrap();
                let file = File::open(sub.join(format!("file{file}"))).unwrap();
                file.set_modified(time).unwrap();
            }
            File::open(&sub).unwrap().set_modified(time).unwrap();
        }
        File::open(&folder).unwrap().set_modified(time).unwrap();
        folder
    };
    let forwards: Vec<usize> = (0..30).collect();
    let backwards: Vec<usize> = (0..30).rev().collect();
    let bytes = |layer: PathBuf| {
        let (image, _folder) = convert(&layer);
        let mut bytes = vec![0; usize::try_from(image.bytes()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(image.file(), &mut bytes, 0).unwrap();
        bytes
    };
    assert!(bytes(build("a", &forwards)) == bytes(build("b", &backwards)));
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, layer) = (folder.path().join("disk"), folder.path().join("layer"));
    std::fs::create_dir_all(layer.join("sub")).unwrap();
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(layer.join("sub/big"), vec![1; 8 << 20]).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&disk, "size=4m,mode=700") else {
        not_run_here("a tmpfs cannot be mounted");
        return;
    };
    let cache = LayerCache::open(&disk, 1 << 40, 2).unwrap();
    let error = cache.layers(&[layer]).unwrap_err().to_string();
    assert!(error.contains(disk.to_str().unwrap()) && error.contains("image.cache_path"), "{error}");
    let names: Vec<_> = std::fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
    assert_eq!(std::fs::metadata(disk.join("lock")).unwrap().size(), 0);
}

#[test]
fn images_that_nobody_uses_make_room_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&disk, "size=8m,mode=700") else {
        not_run_here("a tmpfs cannot be mounted");
        return;
    };
    let cache = LayerCache::open(&disk, 1 << 40, 1).unwrap();
    for number in 0..4 {
        let layer = folder.path().join(format!("layer{number}"));
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("content"), vec![1; 3 << 20]).unwrap();
        cache.layers(&[layer]).unwrap();
    }
}
