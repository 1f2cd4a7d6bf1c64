//! The demonstration's image: Python and a program that prints the secret it is given.

use oci_spec::image::ConfigBuilder;

use super::debian;
use super::layer::{Entry, Kind, Layer};
use super::layout::Image;
use super::{Inputs, Recipe};
use crate::error::Error;

/// What the program's line starts with.
pub const SECRET_LINE: &str = "The secret key is: ";

const PROGRAM: &str = r#"#!/usr/bin/python3
"""Prints the secret that it was given, and the kernel that it runs on."""

import os

print("The secret key is:", os.environ.get("SECRET_KEY", "(none was given)"))
print("kernel release:", os.uname().release)
"#;

pub(super) const RECIPE: Recipe = Recipe {
    name: "demo",
    code: include_str!("demo.rs"),
    packages: &["python3-minimal"],
    probe: false,
    make,
};

fn make(inputs: &Inputs) -> Result<Image, Error> {
    let mut system = Layer::default();
    debian::merge_usr(&mut system);
    for folder in ["dev", "etc", "proc", "root", "sys", "run"] {
        system.directory(folder);
    }
    system.add(Entry::new("tmp", Kind::Directory).mode(0o1777));
    system.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n").file("etc/group", "root:x:0:\n");
    for package in &inputs.packages {
        debian::unpack(package, &mut system)?;
    }
    let mut program = Layer::default();
    program.directory("app").program("app/secret.py", PROGRAM);

    let config = ConfigBuilder::default()
        .env(["PATH=/usr/bin:/bin".to_owned(), "PYTHONDONTWRITEBYTECODE=1".to_owned()])
        .cmd(["/app/secret.py".to_owned()])
        .working_dir("/app")
        .build()
        .map_err(|error| Error::Task(format!("the image's configuration is wrong: {error}")))?;
    Ok(Image { layers: vec![system, program], config })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_prints_the_line_that_the_demonstration_looks_for() {
        assert!(super::PROGRAM.contains(super::SECRET_LINE.trim_end()));
    }
}
