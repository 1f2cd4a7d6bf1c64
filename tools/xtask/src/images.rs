//! OCI images for the demonstration and the tests, made from Debian packages: no registry is asked.
//!
//! Each image is a tar of an OCI image layout that `ctr image import` takes, and the same inputs give the same
//! bytes. It lands in the cache under a key of everything that goes into it.

mod busybox;
mod configured;
mod debian;
mod demo;
mod layer;
mod layers20;
mod layout;
mod pause;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Key};
use crate::error::Error;
use crate::programs;

pub use demo::SECRET_LINE;
pub use layer::{Entry, Kind, Layer};
pub use layout::Image;

/// What an image is called in containerd: `nacre.test/<name>:1`.
pub fn reference(name: &str) -> String {
    format!("nacre.test/{name}:1")
}

/// A recipe: what goes into an image, and how it is made of that.
struct Recipe {
    name: &'static str,
    /// The text of the code that makes it, so that a changed recipe has a new key.
    code: &'static str,
    packages: &'static [&'static str],
    probe: bool,
    make: fn(&Inputs) -> Result<Image, Error>,
}

/// What a recipe is given.
struct Inputs {
    /// The package files with everything they depend on.
    packages: Vec<PathBuf>,
    /// The tests' probe program, for the images that ask for it.
    probe: Vec<u8>,
}

const RECIPES: [Recipe; 5] =
    [demo::RECIPE, busybox::RECIPE, layers20::RECIPE, configured::RECIPE, pause::RECIPE];

/// The code that all images share.
const SHARED_CODE: [&str; 3] =
    [include_str!("images/layer.rs"), include_str!("images/layout.rs"), include_str!("images/debian.rs")];

/// The tar files of all images.
///
/// # Errors
/// A package can't be fetched, the probe can't be built, or the cache can't be written.
pub fn all() -> Result<Vec<PathBuf>, Error> {
    RECIPES.iter().map(build).collect()
}

/// Makes all images and prints their files.
///
/// # Errors
/// Those of [`all`].
pub fn print() -> Result<(), Error> {
    for path in all()? {
        println!("{}", path.display());
    }
    Ok(())
}

fn build(recipe: &Recipe) -> Result<PathBuf, Error> {
    let packages = debian::resolve(recipe.packages)?;
    let probe = if recipe.probe { probe()? } else { Vec::new() };
    let mut key = Key::default();
    key.add("name", recipe.name).add("code", recipe.code).add("probe", &probe);
    for code in SHARED_CODE {
        key.add("shared", code);
    }
    for package in &packages {
        key.add("package", package);
    }
    let file = format!("{}.tar", recipe.name);
    let folder = cache::entry("images", &key.finish(), |folder| {
        let inputs = Inputs { packages: debian::fetch(recipe.packages, &packages)?, probe };
        let image = (recipe.make)(&inputs)?;
        write(&folder.join(&file), &image.to_tar(&reference(recipe.name))?)
    })?;
    Ok(folder.join(file))
}

/// The program that tests run inside containers.
fn probe() -> Result<Vec<u8>, Error> {
    let path = programs::build()?.join("nacre-probe");
    fs::read(&path).map_err(Error::file("can't read", &path))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(Error::file("can't write", path))
}
