//! Images that containers mount.

use k8s_cri::v1::{ImageSpec, Mount};

use crate::context::Context;
use crate::cri::client::Cri;
use crate::failure::{Outcome, equal};

/// One of many layers, with files that no copy can have, and one of a single layer.
const IMAGES: [(&str, &str); 2] = [("nacre.test/layers20:1", "/many"), ("nacre.test/pause:1", "/single")];

pub fn image(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    cri.need_major(2, "image volumes")?;
    let pod = cri.pod("a").run()?;
    for name in ["one", "two"] {
        let container = pod.container(name).with(|config| {
            config.mounts.extend(IMAGES.iter().map(|(image, place)| Mount {
                container_path: (*place).to_owned(),
                image: Some(ImageSpec { image: (*image).to_owned(), ..Default::default() }),
                readonly: true,
                ..Default::default()
            }));
        });
        let script = "cat /many/data/last-writer; /single/nacre-probe 2>/dev/null; test -x /single/nacre-probe && echo program; \
            for place in /many /single; do touch $place/new 2>/dev/null || echo refused; done";
        let shown = container.script(script).run()?;
        equal("the images", shown.as_str(), "layer 19\nprogram\nrefused\nrefused\n")?;
    }
    pod.end()
}
