//! The image of a pod's sandbox, which runc runs as a process: one static program and nothing else.

use oci_spec::image::ConfigBuilder;

use super::layer::Layer;
use super::layout::Image;
use super::{Inputs, Recipe};
use crate::error::Error;

pub(super) const RECIPE: Recipe =
    Recipe { name: "pause", code: include_str!("pause.rs"), packages: &[], probe: true, make };

fn make(inputs: &Inputs) -> Result<Image, Error> {
    let mut layer = Layer::default();
    layer.program("nacre-probe", inputs.probe.clone());
    let config = ConfigBuilder::default()
        .entrypoint(["/nacre-probe".to_owned(), "pause".to_owned()])
        .build()
        .map_err(|error| Error::Task(format!("the image's configuration is wrong: {error}")))?;
    Ok(Image { layers: vec![layer], config })
}
