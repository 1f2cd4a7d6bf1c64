//! The image of most tests: busybox under all its names, and the tests' probe.

use std::path::Path;

use oci_spec::image::{Config, ConfigBuilder};

use super::debian;
use super::layer::{Entry, Kind, Layer};
use super::layout::Image;
use super::{Inputs, Recipe};
use crate::error::Error;

/// The names under which busybox is found.
const NAMES: &str = "[ awk base64 basename cat chgrp chmod chown cp cut date dd df dirname dmesg du echo env expr false \
    find free grep head hostname id ip kill killall ln ls md5sum mkdir mkfifo mknod mktemp mount mv nc nproc od ping \
    printf ps pwd readlink realpath reset rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync tail tar tee \
    test time timeout top touch tr true truncate tty umount uname uniq vi wc wget which whoami xargs yes";

pub(super) const RECIPE: Recipe = Recipe {
    name: "busybox",
    code: include_str!("busybox.rs"),
    packages: &["busybox-static"],
    probe: true,
    make,
};

fn make(inputs: &Inputs) -> Result<Image, Error> {
    Ok(Image { layers: vec![base(inputs)?], config: plain_config()? })
}

/// What the images with busybox have in common.
pub(super) fn config() -> ConfigBuilder {
    ConfigBuilder::default().env(["PATH=/bin".to_owned()])
}

/// An image's configuration with nothing special in it.
pub(super) fn plain_config() -> Result<Config, Error> {
    let config = config().cmd(["/bin/sh".to_owned()]).build();
    config.map_err(|error| Error::Task(format!("the image's configuration is wrong: {error}")))
}

/// The layer with busybox, the probe and the files that programs look for.
pub(super) fn base(inputs: &Inputs) -> Result<Layer, Error> {
    let mut layer = Layer::default();
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "var"] {
        layer.directory(folder);
    }
    layer.add(Entry::new("tmp", Kind::Directory).mode(0o1777));
    layer.program("bin/busybox", busybox(&inputs.packages)?);
    for name in NAMES.split_whitespace() {
        layer.symlink(&format!("bin/{name}"), "busybox");
    }
    layer.program("bin/nacre-probe", inputs.probe.clone());
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n");
    layer.file("etc/group", "root:x:0:\nalice:x:1000:\npearls:x:2000:alice\ndivers:x:2001:alice\n");
    Ok(layer)
}

fn busybox(packages: &[impl AsRef<Path>]) -> Result<Vec<u8>, Error> {
    let package = packages
        .iter()
        .find(|path| path.as_ref().to_string_lossy().contains("busybox-static"))
        .ok_or_else(|| Error::Task("apt gave no busybox-static".to_owned()))?;
    let mut unpacked = Layer::default();
    debian::unpack(package.as_ref(), &mut unpacked)?;
    unpacked
        .take_file("usr/bin/busybox")
        .ok_or_else(|| Error::Task("busybox-static has no /usr/bin/busybox".to_owned()))
}
