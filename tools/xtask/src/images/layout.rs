//! An image as a tar of an OCI image layout.

use std::collections::HashMap;

use oci_spec::image::{
    Arch, Config, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder,
    Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::layer::{Layer, TIME};
use crate::error::Error;

/// The annotation that names an image for `ctr image import`.
const NAME: &str = "io.containerd.image.name";

/// An image: its layers, bottom first, and what it says about running it.
pub struct Image {
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// Command, environment, user and so on.
    pub config: Config,
}

impl Image {
    /// The layout as a tar, with the image's name in its index.
    ///
    /// # Errors
    /// A part does not fit into its format.
    pub fn to_tar(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut blobs = Blobs::default();
        let layers = self
            .layers
            .iter()
            .map(|layer| blobs.add(MediaType::ImageLayer, layer.to_tar()?))
            .collect::<Result<Vec<_>, _>>()?;
        let differences: Vec<String> = layers.iter().map(|layer| layer.digest().to_string()).collect();
        let history = layers
            .iter()
            .map(|_| HistoryBuilder::default().created_by("cargo xtask").build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong)?;
        let config = ImageConfigurationBuilder::default()
            .created("2024-01-01T00:00:00Z")
            .architecture(Arch::Amd64)
            .os(Os::Linux)
            .config(self.config.clone())
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids(differences).build().map_err(wrong)?)
            .history(history)
            .build()
            .map_err(wrong)?;
        let config = blobs.add_json(MediaType::ImageConfig, &config)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers)
            .build()
            .map_err(wrong)?;
        let mut manifest = blobs.add_json(MediaType::ImageManifest, &manifest)?;
        let platform = PlatformBuilder::default().architecture(Arch::Amd64).os(Os::Linux).build();
        manifest.set_platform(Some(platform.map_err(wrong)?));
        manifest.set_annotations(Some(HashMap::from([(NAME.to_owned(), name.to_owned())])));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()
            .map_err(wrong)?;
        let version = OciLayoutBuilder::default().image_layout_version("1.0.0").build().map_err(wrong)?;
        blobs.file("index.json", &json(&index)?)?;
        blobs.file("oci-layout", &json(&version)?)?;
        blobs.finish()
    }
}

/// The tar under construction: content under its digest.
struct Blobs {
    tar: Builder<Vec<u8>>,
    known: Vec<String>,
}

impl Default for Blobs {
    fn default() -> Self {
        Self { tar: Builder::new(Vec::new()), known: Vec::new() }
    }
}

impl Blobs {
    fn add(&mut self, media_type: MediaType, content: Vec<u8>) -> Result<Descriptor, Error> {
        let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        if !self.known.contains(&hash) {
            self.file(&format!("blobs/sha256/{hash}"), &content)?;
            self.known.push(hash.clone());
        }
        let digest: Sha256Digest = hash.parse().map_err(wrong)?;
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(digest)
            .size(content.len() as u64)
            .build()
            .map_err(wrong)
    }

    fn add_json(&mut self, media_type: MediaType, value: &impl Serialize) -> Result<Descriptor, Error> {
        self.add(media_type, json(value)?)
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        self.tar
            .append_data(&mut header, path, content)
            .map_err(|error| Error::Task(format!("{path} does not fit into the image: {error}")))
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        self.tar.into_inner().map_err(|error| Error::Task(format!("the image can't be finished: {error}")))
    }
}

/// JSON with its keys in order, whatever maps the value holds.
fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let ordered = serde_json::to_value(value).and_then(|value| serde_json::to_vec(&value));
    ordered.map_err(|error| Error::Task(format!("an image's part can't be written as JSON: {error}")))
}

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::Task(format!("an image's part is against the OCI specification: {error}"))
}
