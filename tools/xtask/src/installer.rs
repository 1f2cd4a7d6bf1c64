//! `cargo xtask installer`: the image that the Helm chart's DaemonSet runs on each node, which is the release's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::ConfigBuilder;

use crate::cache;
use crate::error::Error;
use crate::images::{Entry, Image, Kind, Layer};
use crate::release;

/// Which image.
#[derive(clap::Args)]
pub struct Arguments {
    /// The image's name without a tag, as the chart's `image.repository` says; the tag is nacre's version.
    #[arg(long, value_name = "REPOSITORY", default_value = "localhost/nacre/installer")]
    repository: String,
}

/// Builds the release and packs it, a tar of an OCI image layout, and prints where it is.
///
/// # Errors
/// A build fails, or the image can't be written.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let release = release::build()?;
    let name = format!("{}:{}", arguments.repository, env!("CARGO_PKG_VERSION"));
    let tar = image(&release)?.to_tar(&name)?;
    let path = cache::checkout().join("target/nacre-installer.tar");
    fs::write(&path, tar).map_err(Error::file("can't write", &path))?;
    println!("{name} {}", path.display());
    Ok(())
}

/// The files below a folder, and what to run of them.
fn image(release: &Path) -> Result<Image, Error> {
    let mut layer = Layer::default();
    add(&mut layer, release, Path::new(""))?;
    let words = ["/usr/local/bin/nacre", "install", "--host-root", "/host"].map(str::to_owned);
    let config = ConfigBuilder::default()
        .cmd(words.to_vec())
        .build()
        .map_err(|error| Error::Task(format!("the image's configuration is wrong: {error}")))?;
    Ok(Image { layers: vec![layer], config })
}

/// Adds what is in the folder `below`, in the order of names: the same files give the same bytes.
fn add(layer: &mut Layer, release: &Path, below: &Path) -> Result<(), Error> {
    let folder = release.join(below);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::file("can't read", &folder))? {
        names.push(entry.map_err(Error::file("can't read", &folder))?.file_name());
    }
    names.sort();
    for name in names {
        let below: PathBuf = below.join(name);
        let path = release.join(&below);
        let metadata = path.metadata().map_err(Error::file("can't read", &path))?;
        let inside = below.display().to_string();
        if metadata.is_dir() {
            layer.directory(&inside);
            add(layer, release, &below)?;
        } else {
            let content = fs::read(&path).map_err(Error::file("can't read", &path))?;
            layer.add(Entry::new(inside, Kind::File(content)).mode(metadata.permissions().mode() & 0o7777));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_the_releases_files_with_their_modes() {
        let release = tempfile::tempdir().unwrap();
        let folder = release.path().join("usr/local/bin");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("nacre"), "program").unwrap();
        fs::set_permissions(folder.join("nacre"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(release.path().join("usr/note"), "text").unwrap();

        let image = image(release.path()).unwrap();

        let tar = image.layers[0].to_tar().unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), entry.size())
            })
            .collect();
        let expected = [
            ("usr", 0o755, 0),
            ("usr/local", 0o755, 0),
            ("usr/local/bin", 0o755, 0),
            ("usr/local/bin/nacre", 0o755, 7),
            ("usr/note", 0o644, 4),
        ];
        let expected = expected.map(|(path, mode, size)| (path.to_owned(), mode, size));
        assert_eq!(
            found.iter().map(|(path, ..)| path.trim_end_matches('/')).collect::<Vec<_>>(),
            expected.each_ref().map(|(path, ..)| path.as_str())
        );
        assert!(
            found.iter().zip(&expected).all(|(found, wanted)| (found.1, found.2) == (wanted.1, wanted.2))
        );
        assert_eq!(image.config.cmd().as_ref().unwrap()[1], "install");
    }
}
