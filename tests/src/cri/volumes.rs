//! Volumes, which the tests make on the node as kubelet does.

mod blocks;
mod images;
mod published;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_cri::v1::MountPropagation;

use super::client::Cri;
use super::traces::Traces;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal};

pub const TESTS: &[Test] = &[
    Test::new("volumes/folder", "a folder of the node is there with its files", folder),
    Test::new("volumes/read-only", "a read-only mount can't be written", read_only),
    Test::new(
        "volumes/read-only-below",
        "what is mounted below a read-only source is there, too",
        read_only_below,
    ),
    Test::new("volumes/shared-folder", "containers of a pod share a folder and a part of it", shared_folder),
    Test::new("volumes/empty-dir", "an emptyDir is shared and outlives a container", empty_dir),
    Test::new(
        "volumes/empty-dir-memory",
        "an emptyDir in memory has the size of its limit",
        empty_dir_memory,
    ),
    Test::new("volumes/sub-path", "a subPath is a part of its volume", sub_path),
    Test::new("volumes/config-map", "a ConfigMap's changes and deletions arrive", published::config_map),
    Test::new("volumes/whole", "a reader of a ConfigMap sees one state of it", published::whole),
    Test::new(
        "volumes/termination-log",
        "what a container leaves in its termination log comes back",
        termination_log,
    ),
    Test::new("volumes/files", "hosts, hostname and resolv.conf are there", files),
    Test::new("volumes/shared-memory", "containers of a pod share /dev/shm", shared_memory),
    Test::new("volumes/propagation-slave", "a mount can be HostToContainer", slave),
    Test::new("volumes/propagation-shared", "a mount in the container arrives on the node", shared)
        .not_in_a_vm("its mounts are another kernel's", "the mount on /data can't be rshared"),
    Test::new("volumes/too-large", "a folder over the limit is refused with the key", too_large).only_nacre(),
    Test::new("volumes/disk-full", "a full root file system is an error of the writer alone", disk_full),
    Test::new("volumes/block", "a block device of the node is one in the container", blocks::raw),
    Test::new(
        "volumes/block-written-out",
        "what was written to a block device is on it when the pod was stopped",
        blocks::written_out,
    ),
    Test::new(
        "volumes/block-in-use",
        "a block device that is mounted on the node is refused",
        blocks::in_use,
    )
    .only_nacre(),
    Test::new(
        "volumes/block-sandbox-killed",
        "what was written to a block device is on it when the sandbox was killed",
        blocks::sandbox_killed,
    ),
    Test::new(
        "volumes/assigned",
        "a file system on a disk of the node, assigned to a pod, is mounted in it",
        blocks::assigned,
    )
    .only_nacre(),
    Test::new(
        "volumes/assigned-in-use",
        "an assigned disk that is mounted on the node is refused",
        blocks::assigned_in_use,
    )
    .only_nacre(),
    Test::new("volumes/image", "an image can be mounted, and not be written", images::image),
];

/// A folder as kubelet makes it for a volume of a pod.
fn volume(traces: &Traces, plugin: &str, name: &str) -> Result<PathBuf, Failure> {
    traces.folder(&format!("pods/1/volumes/kubernetes.io~{plugin}/{name}"))
}

/// Something mounted on the node, until it is dropped.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], source: &Path, point: &Path) -> Result<Self, Failure> {
        run("mount", &[options, &[&*source.to_string_lossy(), &*point.to_string_lossy()]].concat())?;
        Ok(Self(point.into()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Runs a program of the node and returns what it wrote.
fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program).args(arguments).output().map_err(Failure::io(program))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    check(output.status.success(), || format!("{program} {arguments:?}: {}", text(&output.stderr)))?;
    Ok(text(&output.stdout))
}

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

fn read_only_below(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let (folder, below) = (cri.traces.folder("volume")?, cri.traces.folder("volume/below")?);
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=256k"], Path::new("tmpfs"), &below)?;
    fs::write(below.join("pearl"), "white\n").map_err(Failure::io("can't write a volume"))?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount_with(&folder, "/data", |mount| mount.readonly = true);
    let script = "cat /data/below/pearl; echo black >/data/pearl || echo refused";
    equal("output", container.script(script).run()?.as_str(), "white\nrefused\n")?;
    pod.end()
}

fn shared_folder(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    let part = cri.traces.folder("volume/part")?;
    let pod = cri.pod("a").run()?;
    let writer = pod.container("writer").mount(&folder, "/data").start()?;
    let reader = pod
        .container("reader")
        .mount_with(&folder, "/data", |mount| mount.readonly = true)
        .mount(&part, "/part")
        .start()?;
    writer.shell("echo white >/data/pearl; echo black >/data/part/pearl")?;
    equal("the whole", reader.shell("cat /data/pearl")?.as_str(), "white\n")?;
    equal("the part", reader.shell("cat /part/pearl")?.as_str(), "black\n")?;
    reader.shell("echo grey >/part/other")?;
    equal("the part's file", writer.shell("cat /data/part/other")?.as_str(), "grey\n")?;
    pod.end()
}

fn empty_dir(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = volume(&cri.traces, "empty-dir", "cache")?;
    fs::write(folder.join("seed"), "seed\n").map_err(Failure::io("can't write a volume"))?;
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o2777))
        .map_err(Failure::io("can't change a volume"))?;
    let pod = cri.pod("a").run()?;
    let first = pod.container("one").mount(&folder, "/cache");
    equal(
        "what was there",
        first.script("cat /cache/seed; echo kept >/cache/file").run()?.as_str(),
        "seed\n",
    )?;
    let again = pod.container("one").attempt(1).mount(&folder, "/cache");
    let shown = again.script("cat /cache/file; stat -c %a /cache").run()?;
    equal("after a restart", shown.as_str(), "kept\n2777\n")?;
    let other = pod.container("two").mount_with(&folder, "/x", |mount| mount.readonly = true);
    equal(
        "in another",
        other.script("cat /x/file; touch /x/y || echo refused").run()?.as_str(),
        "kept\nrefused\n",
    )?;
    pod.end()
}

fn empty_dir_memory(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = volume(&cri.traces, "empty-dir", "memory")?;
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=1m,mode=1777"], Path::new("tmpfs"), &folder)?;
    let pod = cri.pod("a").run()?;
    let script = "dd if=/dev/zero of=/m/fits bs=64k count=8 2>/dev/null && echo fits; \
        dd if=/dev/zero of=/m/large bs=64k count=32 2>/dev/null || echo full; \
        df -k /m | tail -1 | awk '{print $2}'";
    let shown = pod.container("one").mount(&folder, "/m").script(script).run()?;
    equal("the limit", shown.as_str(), "fits\nfull\n1024\n")?;
    pod.end()
}

fn sub_path(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = volume(&cri.traces, "empty-dir", "cache")?;
    let whole = cri.pod("a").run()?;
    let first = whole.container("first").mount(&folder, "/cache").start()?;
    // As kubelet does it: a folder in the volume is mounted on a place of its own.
    let inside = folder.join("a/b");
    fs::create_dir_all(&inside).map_err(Failure::io("can't make a folder"))?;
    let place = cri.traces.folder("pods/1/volume-subpaths/cache/second/0")?;
    let _mounted = Mounted::new(&["--bind"], &inside, &place)?;
    let second = whole.container("second").mount(&place, "/part").start()?;
    second.shell("echo pearl >/part/file")?;
    equal("in the whole", first.shell("cat /cache/a/b/file")?.as_str(), "pearl\n")?;
    first.shell("echo shell >/cache/a/b/other")?;
    equal("in the part", second.shell("cat /part/other")?.as_str(), "shell\n")?;
    whole.end()
}

fn termination_log(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let file = cri.traces.folder("pods/1/containers/one")?.join("0a1b2c3d");
    let pod = cri.pod("a").run()?;
    for (attempt, inside) in [(0, "/dev/termination-log"), (1, "/var/why")] {
        fs::write(&file, "").map_err(Failure::io("can't write a termination log"))?;
        let container = pod.container("one").attempt(attempt).mount(&file, inside);
        let container = container.script(&format!("printf 'no more pearls' >{inside}; exit 3")).start()?;
        container.exited(3)?;
        let text = fs::read_to_string(&file).map_err(Failure::io("can't read a termination log"))?;
        equal("the termination log", text.as_str(), "no more pearls")?;
    }
    pod.end()
}

fn files(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let hosts = cri.traces.folder("pods/1")?.join("etc-hosts");
    fs::write(&hosts, "10.9.8.7 pearl.test\n").map_err(Failure::io("can't write a file"))?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount(&hosts, "/etc/hosts");
    let script = "cat /etc/hosts; test -s /etc/resolv.conf && echo resolver; \
        test \"$(cat /etc/hostname)\" = \"$(hostname)\" && echo name; echo more >>/etc/hosts && echo writable";
    let shown = container.script(script).run()?;
    equal("the files", shown.as_str(), "10.9.8.7 pearl.test\nresolver\nname\nwritable\n")?;
    pod.end()
}

fn shared_memory(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let first = pod.container("one").start()?;
    first.shell("echo pearl >/dev/shm/file")?;
    let shown = pod.container("two").script("cat /dev/shm/file").run()?;
    equal("shared memory", shown.as_str(), "pearl\n")?;
    pod.end()
}

fn slave(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    fs::write(folder.join("pearl"), "white\n").map_err(Failure::io("can't write a volume"))?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount_with(&folder, "/data", |mount| {
        mount.propagation = MountPropagation::PropagationHostToContainer.into();
    });
    equal("the file", container.script("cat /data/pearl").run()?.as_str(), "white\n")?;
    pod.end()
}

fn shared(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    fs::create_dir(folder.join("inner")).map_err(Failure::io("can't make a folder"))?;
    let pod = cri.pod("a").security(|it| it.privileged = true).run()?;
    let container = pod.container("one").security(|it| it.privileged = true);
    let container = container.mount_with(&folder, "/data", |mount| {
        mount.propagation = MountPropagation::PropagationBidirectional.into();
    });
    container.script("mount -t tmpfs none /data/inner && touch /data/inner/pearl").run()?;
    let arrived = Mounted(folder.join("inner"));
    check(arrived.0.join("pearl").exists(), || "the mount does not arrive".to_owned())?;
    drop(arrived);
    pod.end()
}

fn too_large(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = cri.traces.folder("volume")?;
    fs::write(folder.join("large"), vec![1; 20 << 20]).map_err(Failure::io("can't write a volume"))?;
    let pod = cri.pod("a").run()?;
    let refusal = pod.container("one").mount(&folder, "/data").refused()?;
    contains("the refusal", &refusal, &folder.display().to_string())?;
    contains("the refusal", &refusal, "binds.max_folder_kib")?;
    let next = pod.container("two").script("echo goes on").run()?;
    equal("the next container", next.as_str(), "goes on\n")?;
    pod.end()
}

fn disk_full(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let folder = volume(&cri.traces, "empty-dir", "full")?;
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=256k"], Path::new("tmpfs"), &folder)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").mount(&folder, "/full").start()?;
    let full = "dd if=/dev/zero of=/full/x bs=64k count=16 2>&1 | grep -c 'No space left'";
    equal("the error", container.shell(full)?.as_str(), "1\n")?;
    equal("afterwards", container.shell("rm /full/x; echo y >/full/y; cat /full/y")?.as_str(), "y\n")?;
    equal("another", pod.container("two").script("echo runs").run()?.as_str(), "runs\n")?;
    pod.end()
}
