//! An image with everything that makes layers hard: twenty of them, names that come and go, odd kinds of files.

use super::busybox;
use super::layer::{Entry, Kind, Layer};
use super::layout::Image;
use super::{Inputs, Recipe};
use crate::error::Error;

pub(super) const RECIPE: Recipe = Recipe {
    name: "layers20",
    code: concat!(include_str!("layers20.rs"), include_str!("busybox.rs")),
    packages: &["busybox-static"],
    probe: true,
    make,
};

/// Layers of the image.
const LAYERS: usize = 20;

/// What a layer has beside the ordinary.
type Change = fn(&mut Layer);

fn make(inputs: &Inputs) -> Result<Image, Error> {
    let mut layers = vec![busybox::base(inputs)?];
    layers.extend((1..LAYERS).map(ordinary));
    let changes: [(usize, Change); 8] = [
        (1, lower),
        (2, links),
        (3, devices),
        (4, attributes),
        (5, names),
        (6, holes),
        (12, remove),
        (17, restore),
    ];
    for (number, change) in changes {
        if let Some(layer) = layers.get_mut(number) {
            change(layer);
        }
    }
    Ok(Image { layers, config: busybox::plain_config()? })
}

/// What every layer has: a file of its own, one that the next layer replaces, and one more in a shared folder.
fn ordinary(number: usize) -> Layer {
    let mut layer = Layer::default();
    layer.directory("many").directory("data");
    layer.file(&format!("many/layer-{number}"), format!("from layer {number}\n"));
    layer.file("data/last-writer", format!("layer {number}\n"));
    if number.is_multiple_of(2) {
        // Odd layers' files disappear again, one layer later.
        layer.whiteout(&format!("many/layer-{}", number - 1));
    }
    layer
}

fn lower(layer: &mut Layer) {
    for folder in ["hidden", "hidden/deep", "replaced", "becomes-file", "gone", "gone/deep", "kept"] {
        layer.directory(folder);
    }
    layer.file("hidden/old", "must not be seen").file("hidden/deep/old", "must not be seen");
    layer.file("replaced/old", "must not be seen").file("becomes-file/old", "must not be seen");
    layer.file("gone/file", "must not be seen").file("gone/deep/file", "must not be seen");
    layer.file("kept/file", "stays").file("becomes-directory", "must not be seen");
    layer.file("returns", "first time").file("mode-changes", "same content");
}

fn links(layer: &mut Layer) {
    layer.directory("links").file("links/one", "three names, one file");
    for name in ["links/two", "links/three"] {
        layer.add(Entry::new(name, Kind::Hardlink("links/one".to_owned())));
    }
    layer.symlink("links/relative", "one").symlink("links/absolute", "/links/one");
    layer.symlink("links/dangling", "nowhere").symlink("links/long", &"d/".repeat(1500));
}

fn devices(layer: &mut Layer) {
    layer.directory("odd");
    layer.add(Entry::new("odd/null", Kind::CharDevice(1, 3)).mode(0o666));
    layer.add(Entry::new("odd/high", Kind::CharDevice(511, 1_048_575)).mode(0o600).owner(5, 6));
    layer.add(Entry::new("odd/block", Kind::BlockDevice(7, 0)).mode(0o660).owner(0, 6));
    layer.add(Entry::new("odd/pipe", Kind::Fifo).mode(0o622));
    layer.add(Entry::new("odd/setuid", Kind::File(b"s".to_vec())).mode(0o4755));
    layer.add(Entry::new("odd/sticky", Kind::Directory).mode(0o1777));
    layer.add(Entry::new("odd/setgid", Kind::Directory).mode(0o2775).owner(7, 8));
    layer.add(
        Entry::new("odd/owner", Kind::File(b"o".to_vec())).mode(0o000).owner(4_000_000_000, 3_000_000_000),
    );
    let mut old = Entry::new("odd/old", Kind::File(b"1970".to_vec()));
    old.mtime = 1;
    let mut new = Entry::new("odd/future", Kind::File(b"2100".to_vec()));
    new.mtime = 4_102_444_800;
    layer.add(old).add(new);
}

fn attributes(layer: &mut Layer) {
    // A capability set of revision 2: CAP_NET_BIND_SERVICE permitted and effective.
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    layer.directory("attributes");
    layer.add(Entry::new("attributes/user", Kind::File(b"u".to_vec())).xattr("user.pearl", b"white"));
    layer.add(
        Entry::new("attributes/many", Kind::File(b"m".to_vec()))
            .xattr("user.empty", b"")
            .xattr("user.binary", &[0, 1, 2, 255])
            .xattr("user.large", &[b'x'; 1000]),
    );
    layer.add(Entry::new("attributes/folder", Kind::Directory).xattr("user.folder", b"yes"));
    layer.add(
        Entry::new("attributes/capable", Kind::File(b"c".to_vec()))
            .mode(0o755)
            .xattr("security.capability", &CAPABILITY),
    );
}

fn names(layer: &mut Layer) {
    layer.directory("names");
    layer.file(&format!("names/{}", "n".repeat(255)), "a name of 255 bytes");
    layer.file(&format!("names/{}", "ö".repeat(127)), "a name of 254 bytes that is not ASCII");
    layer.file("names/ with blanks ", "blanks").file("names/new\nline", "line break");
    layer.file("names/-dash", "dash").file("names/quote'\"\\", "quotes").file("names/.hidden", "dot");
    let mut path = "names".to_owned();
    for _ in 0..12 {
        path = format!("{path}/{}", "d".repeat(200));
        layer.directory(&path);
    }
    layer.file(&format!("{path}/bottom"), "2,400 bytes deep");
    layer.file("names/empty", Vec::new());
}

fn holes(layer: &mut Layer) {
    const MIB: usize = 1 << 20;
    let mut content = vec![0; 8 * MIB];
    // Data at the start, in the middle of a page, and as the very last byte.
    for (position, value) in [(0, 1), (3 * MIB + 123, 2), (8 * MIB - 1, 3)] {
        if let Some(byte) = content.get_mut(position) {
            *byte = value;
        }
    }
    layer.directory("holes").file("holes/mostly", content).file("holes/only", vec![0; 2 * MIB]);
    for (name, size) in [("4095", 4095), ("4096", 4096), ("4097", 4097), ("65537", 65537)] {
        let content: Vec<u8> = (0..size).map(|index: usize| (index % 251).to_le_bytes()[0]).collect();
        layer.file(&format!("holes/size-{name}"), content);
    }
}

fn remove(layer: &mut Layer) {
    layer.directory("hidden").opaque("hidden").file("hidden/new", "seen");
    layer.whiteout("gone").whiteout("links/two").whiteout("returns");
    layer.whiteout("becomes-directory").whiteout("becomes-file");
    layer.add(Entry::new("mode-changes", Kind::File(b"same content".to_vec())).mode(0o700).owner(9, 9));
    layer.directory("replaced").opaque("replaced");
}

fn restore(layer: &mut Layer) {
    layer.file("returns", "second time").file("becomes-file", "a file now");
    layer.directory("becomes-directory").file("becomes-directory/inside", "a folder now");
    layer.directory("gone").file("gone/back", "only this");
    layer.directory("kept").whiteout("kept/never-was");
}
