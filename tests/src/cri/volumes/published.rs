//! Volumes that kubelet publishes by switching a link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use super::volume;
use crate::context::Context;
use crate::cri::client::Cri;
use crate::failure::{Failure, Outcome, check, equal, wrong};
use crate::wait::eventually;

/// What Kubernetes' users are promised here. The emulated node needs most of it for the test's own look.
const SOON: Duration = Duration::from_secs(10);

/// Publishes a state of a folder as kubelet does: a folder of its own, then the link, then what leads to it.
fn publish(root: &Path, state: &str, keys: &[&str]) -> Outcome {
    let steps = || {
        let folder = root.join(state);
        fs::create_dir(&folder)?;
        for key in keys {
            fs::write(folder.join(key), format!("{state}\n"))?;
        }
        let old = fs::read_link(root.join("..data")).ok();
        symlink(state, root.join("..data_tmp"))?;
        fs::rename(root.join("..data_tmp"), root.join("..data"))?;
        for key in keys.iter().filter(|key| !root.join(key).is_symlink()) {
            symlink(Path::new("..data").join(key), root.join(key))?;
        }
        let Some(old) = old else { return Ok(()) };
        for entry in fs::read_dir(root.join(&old))? {
            let name = entry?.file_name();
            if !keys.iter().any(|key| name == *key) {
                fs::remove_file(root.join(name))?;
            }
        }
        fs::remove_dir_all(root.join(old))
    };
    steps().map_err(Failure::io("can't publish a volume"))
}

pub fn config_map(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let map = volume(&cri.traces, "configmap", "map")?;
    publish(&map, "..1", &["kept", "gone"])?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount_with(&map, "/map", |mount| mount.readonly = true).start()?;
    equal("at first", container.shell("cat /map/kept /map/gone")?.as_str(), "..1\n..1\n")?;
    publish(&map, "..2", &["kept", "new"])?;
    let since = Instant::now();
    eventually(SOON, || {
        let shown = container.shell("cat /map/kept /map/new; ls -A /map")?;
        match shown.as_str() {
            "..2\n..2\n..2\n..data\nkept\nnew\n" => Ok(()),
            other => wrong(format!("the map is still {other:?}")),
        }
    })?;
    println!("the change was seen after {} ms", since.elapsed().as_millis());
    pod.end()
}

pub fn whole(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let map = volume(&cri.traces, "secret", "map")?;
    publish(&map, "..0", &["a", "b"])?;
    let pod = cri.pod("a").run()?;
    // Enters the folder that the link leads to, and finds two files of one state in it or that it was replaced.
    let script = "while [ ! -e /tmp/end ]; do cd -P /map/..data || echo lost; \
        a=$(cat a 2>/dev/null); b=$(cat b 2>/dev/null); \
        [ -z \"$a\" ] || [ -z \"$b\" ] || [ \"$a\" = \"$b\" ] || echo \"half: $a $b\"; done; cat /map/a";
    let reader = pod.container("one").mount_with(&map, "/map", |mount| mount.readonly = true);
    let reader = reader.script(script).start()?;
    for state in 1..=20 {
        publish(&map, &format!("..{state}"), &["a", "b"])?;
        std::thread::sleep(Duration::from_millis(100));
    }
    eventually(SOON, || {
        let shown = reader.shell("cat /map/a")?;
        check(shown == "..20\n", || format!("the map is still {shown:?}"))
    })?;
    reader.shell("touch /tmp/end")?;
    reader.exited(0)?;
    equal("what the reader saw", reader.output()?.as_str(), "..20\n")?;
    pod.end()
}
