//! Block devices of the node.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_cri::v1::{Device, PodSandboxState};

use super::{Mounted, run};
use crate::context::Context;
use crate::cri::client::Cri;
use crate::cri::traces::Traces;
use crate::failure::{Failure, Outcome, check, contains, equal};
use crate::wait::{SECONDS, eventually};

const SIZE: u64 = 8 << 20;

/// A disk of the node out of a file, until it is dropped.
struct Disk {
    device: PathBuf,
}

impl Disk {
    fn new(traces: &Traces) -> Result<Self, Failure> {
        let file = traces.folder("disks")?.join("disk");
        File::create(&file).and_then(|file| file.set_len(SIZE)).map_err(Failure::io("can't make a disk"))?;
        let device = run("losetup", &["--find", "--show", &file.to_string_lossy()])?;
        Ok(Self { device: device.into() })
    }

    fn start(&self) -> Result<[u8; 6], Failure> {
        let mut bytes = [0; 6];
        let mut file = File::open(&self.device).map_err(Failure::io("can't open a disk"))?;
        file.read_exact(&mut bytes).map_err(Failure::io("can't read a disk"))?;
        Ok(bytes)
    }

    fn device(&self, inside: &str, permissions: &str) -> Device {
        Device {
            container_path: inside.into(),
            host_path: self.device.display().to_string(),
            permissions: permissions.into(),
        }
    }
}

/// What a storage driver says when it leaves it to the guest to mount a disk, until it is dropped.
struct Assignment {
    folder: PathBuf,
}

impl Assignment {
    /// Of an ext4 on `disk`, which kubelet would expect to be mounted at `place`.
    fn new(place: &Path, disk: &Disk) -> Result<Self, Failure> {
        let encode = format!("printf %s '{}' | basenc --base64url --wrap=0", place.display());
        let folder = Path::new(DIRECT_VOLUMES).join(run("sh", &["-c", &encode])?);
        let text = format!(
            r#"{{"volume-type": "block", "device": "{}", "fstype": "ext4", "metadata": {{"fsGroup": "4321"}}, "options": []}}"#,
            disk.device.display()
        );
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join("mountInfo.json"), text))
            .map_err(Failure::io("can't assign a disk"))?;
        Ok(Self { folder })
    }
}

const DIRECT_VOLUMES: &str = "/run/kata-containers/shared/direct-volumes";

impl Drop for Assignment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        // The last one's removal works.
        let above = self.folder.ancestors().skip(1).take(3);
        let _ = above.map(fs::remove_dir).collect::<Vec<_>>();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

pub fn raw(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    let pod = cri.pod("a").run()?;
    let script = "blockdev --getsize64 /dev/pearls; printf pearls | dd of=/dev/pearls conv=fsync 2>/dev/null; \
        dd if=/dev/pearls bs=6 count=1 2>/dev/null";
    let writer = pod.container("one").with(|config| config.devices.push(disk.device("/dev/pearls", "rwm")));
    let shown = writer.script(script).run()?;
    equal("what the container sees", shown.as_str(), &*format!("{SIZE}\npearls"))?;
    equal("what is on the disk", &disk.start()?, b"pearls")?;
    // Read-only, in a pod of its own: the first may still have it.
    pod.end()?;
    let pod = cri.pod("b").run()?;
    let reader = pod.container("one").with(|config| config.devices.push(disk.device("/dev/pearls", "r")));
    let script = "dd if=/dev/pearls bs=6 count=1 2>/dev/null; \
        printf stones | dd of=/dev/pearls conv=fsync 2>/dev/null || echo ' refused'";
    equal("a reader", reader.script(script).run()?.as_str(), "pearls refused\n")?;
    equal("what is on the disk afterwards", &disk.start()?, b"pearls")?;
    pod.end()
}

pub fn written_out(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    let pod = cri.pod("a").run()?;
    let script = "printf pearls | dd of=/dev/pearls conv=notrunc 2>/dev/null; exec 3<>/dev/pearls; \
        echo written; exec sleep 3600";
    let writer = pod.container("one").with(|config| config.devices.push(disk.device("/dev/pearls", "rwm")));
    writer.script(script).start()?.wait_for("written")?;
    pod.stop()?;
    equal("what is on the disk", &disk.start()?, b"pearls")?;
    pod.remove()
}

pub fn in_use(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    run("mkfs.ext4", &["-q", &disk.device.to_string_lossy()])?;
    let point = cri.traces.folder("mounted")?;
    let mounted = Mounted::new(&[], Path::new(&disk.device), &point)?;
    fs::write(point.join("file"), "of the node").map_err(Failure::io("can't write a file"))?;
    let pod = cri.pod("a").run()?;
    let wanted = || pod.container("one").with(|config| config.devices.push(disk.device("/dev/x", "rwm")));
    let refusal = wanted().refused()?;
    contains("the refusal", &refusal, "is in use on the host")?;
    drop(mounted);
    let found =
        wanted().attempt(1).script("dd if=/dev/x bs=1024 skip=1 count=1 2>/dev/null | wc -c").run()?;
    check(found.trim() == "1024", || format!("the disk that is free again gives {found:?}"))?;
    pod.end()
}

pub fn sandbox_killed(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    let pod = cri.pod("a").run()?;
    let script = "exec 3<>/dev/pearls; printf pearls >&3; echo written; exec sleep 3600";
    let writer = pod.container("one").with(|config| config.devices.push(disk.device("/dev/pearls", "rwm")));
    writer.script(script).start()?.wait_for("written")?;
    run("ctr", &["--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", &pod.id])?;
    eventually(SECONDS, || pod.is(PodSandboxState::SandboxNotready))?;
    equal("what is on the disk", &disk.start()?, b"pearls")?;
    pod.end()
}

pub fn assigned(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    run("mkfs.ext4", &["-q", &disk.device.to_string_lossy()])?;
    let point = cri.traces.folder("mounted")?;
    {
        let _mounted = Mounted::new(&[], &disk.device, &point)?;
        fs::write(point.join("node"), "of the node\n").map_err(Failure::io("can't write a file"))?;
    }
    let place = cri.traces.folder("pods/1/volumes/kubernetes.io~csi/pv/mount")?;
    let _assignment = Assignment::new(&place, &disk)?;
    let pod = cri.pod("a").run()?;
    let writer = pod.container("one").mount(&place, "/data").start()?;
    let shown = writer.shell("cat /data/node; stat -c %g /data/node")?;
    equal("what the node wrote", shown.as_str(), "of the node\n4321\n")?;
    let reader = pod.container("two").mount_with(&place, "/x", |mount| mount.readonly = true).start()?;
    writer.shell("echo of the pod >/data/pod")?;
    let shown = reader.shell("cat /x/pod; touch /x/new 2>/dev/null || echo refused")?;
    equal("what another container sees", shown.as_str(), "of the pod\nrefused\n")?;
    check(Mounted::new(&[], &disk.device, &point).is_err(), || "the node can mount the pod's disk".into())?;
    pod.end()?;
    let _mounted = Mounted::new(&[], &disk.device, &point)?;
    let found = fs::read_to_string(point.join("pod")).map_err(Failure::io("can't read the pod's file"))?;
    equal("what the pod wrote", found.as_str(), "of the pod\n")
}

pub fn assigned_in_use(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let disk = Disk::new(&cri.traces)?;
    run("mkfs.ext4", &["-q", &disk.device.to_string_lossy()])?;
    let place = cri.traces.folder("pods/1/volumes/kubernetes.io~csi/pv/mount")?;
    let _assignment = Assignment::new(&place, &disk)?;
    let _mounted = Mounted::new(&["-o", "ro"], &disk.device, &place)?;
    let pod = cri.pod("a").run()?;
    let refusal = pod.container("one").mount(&place, "/data").refused()?;
    contains("the refusal", &refusal, "is in use on the host")?;
    pod.end()
}
