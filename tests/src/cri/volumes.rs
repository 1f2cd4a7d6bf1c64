//! Volumes, which the tests make on the node as kubelet does.

use std::fs;

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, equal};

pub const TESTS: &[Test] = &[
    Test::new("volumes/folder", "a folder of the node is there with its files", folder),
    Test::new("volumes/read-only", "a read-only mount can't be written", read_only),
];

fn folder(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    fs::write(folder.join("pearl"), "white\n").map_err(Failure::io("can't write a volume"))?;
    let pod = cri.pod("a").run()?;
    let shown = pod.container("one").mount(&folder, "/data").script("cat /data/pearl").run()?;
    equal("the file", shown.as_str(), "white\n")?;
    pod.end()
}

fn read_only(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    fs::write(folder.join("pearl"), "white\n").map_err(Failure::io("can't write a volume"))?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount_with(&folder, "/data", |mount| mount.readonly = true);
    let script = "cat /data/pearl; echo black >/data/pearl || echo refused";
    equal("output", container.script(script).run()?.as_str(), "white\nrefused\n")?;
    pod.end()
}
