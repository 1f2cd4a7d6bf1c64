//! What the specification says about a process and what it sees.

use serde_json::{Value, json};

use super::Test;
use crate::context::Context;
use crate::failure::{Outcome, check, contains, equal};
use crate::process::Finished;

pub const TESTS: &[Test] = &[
    Test::new("user-and-groups", "user, group, additional groups, folder and environment", user),
    Test::new("capabilities", "exactly the specification's capabilities", capabilities),
    Test::new("rlimits", "the specification's limits", rlimits),
    Test::new("seccomp-errno", "a forbidden system call fails with the profile's error", seccomp_errno),
    Test::new("seccomp-kill", "a deadly system call kills the process", seccomp_kill),
    Test::new("seccomp-default", "containerd's default profile lets programs run", seccomp_default),
    Test::new("read-only-root", "a read-only root, with a writable tmpfs in it", read_only_root),
    Test::new("writable-root", "the root can be written, and is fresh each time", writable_root),
    Test::new("masked-paths", "masked paths show nothing, read-only paths can't be written", masked_paths),
    Test::new("sysctls", "the specification's sysctls", sysctls),
    Test::new("no-new-privileges", "on and off as the specification says", no_new_privileges),
    Test::new("tmpfs-mounts", "tmpfs mounts with their size, mode and options", tmpfs),
    Test::new("shm-size", "the size of /dev/shm", shm_size),
    Test::new("devices", "a node for a disk can be made and not be opened", devices),
    Test::new("hostname", "the specification's host name", hostname),
    Test::new("bind-mounts", "a file and a small folder are bound in", binds),
    Test::new("bind-refused", "what can't be bound in is refused by name", bind_refused).only_nacre(),
    Test::new("namespaces", "processes and network of the node are not seen", namespaces),
];

fn user(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        spec["process"]["user"] =
            json!({ "uid": 1234, "gid": 2345, "additionalGids": [3456, 4567], "umask": 0o27 });
        spec["process"]["cwd"] = json!("/var");
        spec["process"]["env"] = json!(["PATH=/bin", "EMPTY=", "BLANKS=a b  c", "EQUALS=x=y"]);
    };
    let script = "id -u; id -g; id -G; pwd; env | sort | grep -v -e PWD -e SHLVL -e HOME; umask";
    let finished = context.container("a").specification(edit).script(script).run()?;
    let environment = "BLANKS=a b  c\nEMPTY=\nEQUALS=x=y\nPATH=/bin\n";
    finished.wrote(&format!("1234\n2345\n2345 3456 4567\n/var\n{environment}0027\n")).map(|_| ())
}

fn capabilities(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        let kept = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        let none = json!([]);
        spec["process"]["capabilities"] = json!({ "bounding": kept, "permitted": kept, "effective": ["CAP_CHOWN"], "inheritable": none, "ambient": none });
    };
    let finished =
        context.container("a").specification(edit).command(&["cat", "/proc/self/status"]).run()?.exited(0)?;
    // Root gets what is in the bounding set when it starts a program: CAP_CHOWN is 0, CAP_NET_BIND_SERVICE 10.
    let wanted = "0000000000000401";
    for (name, value) in [("CapBnd", wanted), ("CapPrm", wanted), ("CapAmb", "0000000000000000")] {
        contains("/proc/self/status", &finished.stdout, &format!("{name}:\t{value}"))?;
    }
    let all = context
        .container("b")
        .script("grep CapBnd /proc/self/status; chroot / true 2>&1; mknod /tmp/x c 1 3 && echo made");
    let all = all.run()?.exited(0)?;
    contains("standard output", &all.stdout, "00000000a80425fb")
}

fn rlimits(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 333, "hard": 444 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 1111, "hard": 2222 },
        ]);
    };
    let finished =
        context.container("a").specification(edit).command(&["cat", "/proc/self/limits"]).run()?.exited(0)?;
    for (name, soft, hard) in [
        ("Max open files", "333", "444"),
        ("Max core file size", "0", "0"),
        ("Max processes", "1111", "2222"),
    ] {
        let line = finished.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let words: Vec<&str> = line.strip_prefix(name).unwrap_or_default().split_whitespace().collect();
        equal(name, words.get(..2), Some(&[soft, hard][..]))?;
    }
    Ok(())
}

/// A profile that allows all but these system calls.
fn profile(spec: &mut Value, rule: Value) {
    spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule] });
}

fn seccomp_errno(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        // 95 is EOPNOTSUPP, which nothing else gives here.
        profile(spec, json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }));
    };
    let script =
        "mkdir /tmp/x; echo status $?; touch /tmp/y && echo others work; grep Seccomp: /proc/self/status";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    contains("standard error", &finished.stderr, "not supported")?;
    contains("standard output", &finished.stdout, "status 1\nothers work\nSeccomp:\t2\n")
}

fn seccomp_kill(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        profile(spec, json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }));
    };
    let script = "echo before; (exec mkdir /tmp/x); echo status $?";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    contains("standard output", &finished.stdout, "before\nstatus 159\n")
}

fn seccomp_default(context: &Context) -> Outcome {
    let script =
        "grep Seccomp: /proc/self/status; mkdir /tmp/x && ls -d /tmp/x; unshare -n true && echo unshared";
    let finished = context.container("a").flags(&["--seccomp"]).script(script).run()?;
    contains("standard output", &finished.stdout, "Seccomp:\t2\n/tmp/x\n")?;
    check(!finished.stdout.contains("unshared"), || "the profile allows unshare".to_owned())
}

fn read_only_root(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        spec["root"]["readonly"] = json!(true);
        mount(
            spec,
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }),
        );
    };
    let script = "touch /new; echo status $?; echo content > /tmp/new && cat /tmp/new";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    contains("standard error", &finished.stderr, "Read-only file system")?;
    equal("standard output", finished.stdout.as_str(), "status 1\ncontent\n")
}

fn writable_root(context: &Context) -> Outcome {
    let script = "ls /new 2>/dev/null; echo more >> /etc/passwd; rm /etc/group; mkdir -p /new/deep; mv /bin/yes /new/deep; \
                  tail -1 /etc/passwd; ls /etc; find /new";
    for name in ["a", "b"] {
        context
            .container(name)
            .script(script)
            .run()?
            .wrote("more\npasswd\n/new\n/new/deep\n/new/deep/yes\n")?;
    }
    Ok(())
}

fn masked_paths(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        spec["linux"]["maskedPaths"] = json!(["/etc/passwd", "/proc/kcore", "/root", "/no/such/path"]);
        spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/var", "/no/such/path"]);
    };
    let script = "wc -c < /etc/passwd; touch /root/x 2>&1; ls -A /root | wc -l; touch /var/x 2>&1; \
                  echo 1 2>&1 > /proc/sys/kernel/domainname; touch /etc/x && echo others work";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    let text = format!("{}{}", finished.stdout, finished.stderr);
    for part in ["0\n", "/var/x: Read-only file system", "/root/x: Read-only file system", "others work"] {
        contains("the output", &text, part)?;
    }
    equal("read-only errors", text.matches("Read-only file system").count(), 3)
}

fn sysctls(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "777", "kernel.shmmax": "12345678", "fs.mqueue.msg_max": "22" });
    };
    let files = ["net/ipv4/ip_unprivileged_port_start", "kernel/shmmax", "fs/mqueue/msg_max"];
    let paths: Vec<String> = files.iter().map(|file| format!("/proc/sys/{file}")).collect();
    let script = format!("cat {}", paths.join(" "));
    context.container("a").specification(edit).script(&script).run()?.wrote("777\n12345678\n22\n").map(|_| ())
}

fn no_new_privileges(context: &Context) -> Outcome {
    let script = "grep NoNewPrivs /proc/self/status";
    let on = |spec: &mut Value| spec["process"]["noNewPrivileges"] = json!(true);
    let off = |spec: &mut Value| spec["process"]["noNewPrivileges"] = json!(false);
    context.container("a").specification(on).script(script).run()?.wrote("NoNewPrivs:\t1\n")?;
    context.container("b").specification(off).script(script).run()?.wrote("NoNewPrivs:\t0\n").map(|_| ())
}

fn mount(spec: &mut Value, mount: Value) {
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

fn tmpfs(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        let options = json!(["nosuid", "nodev", "noexec", "size=1m", "mode=1770"]);
        mount(
            spec,
            json!({ "destination": "/scratch/deep", "type": "tmpfs", "source": "tmpfs", "options": options }),
        );
    };
    let script = "grep ' /scratch/deep ' /proc/self/mounts; stat -c %a /scratch/deep; \
                  dd if=/dev/zero of=/scratch/deep/x bs=1M count=2 2>&1 | grep -o 'No space left'; ls -l /scratch/deep/x";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    for part in ["nosuid", "nodev", "noexec", "size=1024k", "\n1770\n", "No space left", " 1048576 "] {
        contains("standard output", &finished.stdout, part)?;
    }
    Ok(())
}

fn shm_size(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| {
        for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/dev/shm" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "mode=1777", "size=12m"]);
            }
        }
    };
    let script = "grep ' /dev/shm ' /proc/self/mounts; stat -c %a /dev/shm";
    let finished = context.container("a").specification(edit).script(script).run()?.exited(0)?;
    contains("standard output", &finished.stdout, "size=12288k")?;
    contains("standard output", &finished.stdout, "\n1777\n")
}

fn devices(context: &Context) -> Outcome {
    // Every disk that the kernel has, with the capability to make nodes that containers have.
    let script = "while read major minor blocks name; do \
                    [ \"$blocks\" -gt 0 ] 2>/dev/null || continue; \
                    mknod /tmp/$name b $major $minor || echo no node; \
                    dd if=/tmp/$name of=/dev/null bs=512 count=1 2>/dev/null && echo opened $name; \
                    disks=more; \
                  done < /proc/partitions; \
                  mknod /tmp/null c 1 3 && echo into null > /tmp/null && echo ${disks:-none}";
    let finished = context.container("a").script(script).run()?;
    finished.wrote("more\n").map(|_| ())
}

fn hostname(context: &Context) -> Outcome {
    let edit = |spec: &mut Value| spec["hostname"] = json!("oyster-bed");
    context.container("a").specification(edit).command(&["hostname"]).run()?.wrote("oyster-bed\n").map(|_| ())
}

fn binds(context: &Context) -> Outcome {
    let home = Folder::new(context)?;
    home.write("file", "from the node\n")?;
    home.write("folder/inside/deep", "deep\n")?;
    home.write("folder/top", "top\n")?;
    let of = |from: &str, to: &str| format!("type=bind,src={}/{from},dst={to},options=rbind:ro", home.path());
    let (file, folder) = (of("file", "/etc/bound"), of("folder", "/bound"));
    let container = context.container("a").flags(&["--mount", &file, "--mount", &folder]);
    let script =
        "cat /etc/bound /bound/top /bound/inside/deep; touch /bound/new 2>/dev/null || echo read-only";
    container.script(script).run()?.wrote("from the node\ntop\ndeep\nread-only\n").map(|_| ())
}

fn bind_refused(context: &Context) -> Outcome {
    let refused = |finished: Finished, name: &str| -> Outcome {
        let finished = finished.failed()?;
        contains("the error", &finished.stderr, name)
    };
    let large = Folder::new(context)?;
    large.write("large", &"x".repeat(70 << 20))?;
    let bind = format!("type=bind,src={}/large,dst=/large,options=rbind:ro", large.path());
    refused(context.container("a").flags(&["--mount", &bind]).command(&["true"]).run()?, "large")?;
    context.gone(&context.id("a"))
}

/// A folder of the node, removed in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(context: &Context) -> Result<Self, crate::failure::Failure> {
        let path = std::env::temp_dir().join(context.id("files"));
        std::fs::create_dir_all(&path).map_err(crate::failure::Failure::io("can't make a folder"))?;
        Ok(Self(path))
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> Outcome {
        let path = self.0.join(name);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| std::fs::write(&path, content));
        written.map_err(crate::failure::Failure::io(format!("can't write {}", path.display())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn namespaces(context: &Context) -> Outcome {
    let script =
        "echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net; cat /proc/net/unix | grep -c containerd";
    let finished = context.container("a").script(script).run()?;
    let lines: Vec<&str> = finished.stdout.lines().collect();
    equal("the first process", lines.first(), Some(&"1"))?;
    check(finished.stdout.contains("lo"), || format!("no loopback: {}", finished.stdout))?;
    equal("sockets of containerd", lines.last(), Some(&"0"))
}
