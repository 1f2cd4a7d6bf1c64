//! An image that says how it is run: user, folder, environment, entry point and command.

use super::busybox;
use super::layout::Image;
use super::{Inputs, Recipe};
use crate::error::Error;

pub(super) const RECIPE: Recipe = Recipe {
    name: "configured",
    code: concat!(include_str!("configured.rs"), include_str!("busybox.rs")),
    packages: &["busybox-static"],
    probe: true,
    make,
};

/// Prints what the image's configuration decides; the tests compare each line.
const REPORT: &str = "#!/bin/sh\nid -u; id -g; id -G; pwd; echo \"$PEARL\"; echo \"$@\"\n";

fn make(inputs: &Inputs) -> Result<Image, Error> {
    let mut base = busybox::base(inputs)?;
    base.directory("work").program("bin/report", REPORT);
    let config = busybox::config()
        .env(["PATH=/bin".to_owned(), "PEARL=white and round".to_owned()])
        .user("alice")
        .working_dir("/work")
        .stop_signal("SIGUSR1")
        .entrypoint(["/bin/report".to_owned(), "first".to_owned()])
        .cmd(["second".to_owned()])
        .build()
        .map_err(|error| Error::Task(format!("the image's configuration is wrong: {error}")))?;
    Ok(Image { layers: vec![base], config })
}
