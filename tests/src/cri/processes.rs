//! Processes and streams: exec, attach, logs, and how containers end.

use std::fs;
use std::time::{Duration, Instant};

use super::client::Cri;
use crate::cases::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::wait::{SECONDS, eventually};

pub const TESTS: &[Test] = &[
    Test::new("processes/exec-sync", "exec gives output, errors and exit status", exec),
    Test::new(
        "processes/exec-timeout",
        "an exec past its time is ended, the container goes on",
        exec_timeout,
    ),
    Test::new("processes/exec-stream", "exec with streams carries input, output and status", exec_stream),
    Test::new(
        "processes/exec-terminal",
        "exec with a terminal has its size, also after a change",
        exec_terminal,
    ),
    Test::new("processes/attach", "attach joins the streams, and again after detaching", attach),
    Test::new("processes/attach-terminal", "attach to a terminal works and resizes it", attach_terminal),
    Test::new("processes/logs", "the log has both streams in order, with long lines in parts", logs),
    Test::new("processes/log-rotation", "after rotation the log goes on in the new file", rotation),
    Test::new("processes/stop-signal", "stop sends the signal that the image names", signal_of_image),
    Test::new("processes/stop-with-grace", "stop ends a container by its signal and waits for it", grace),
    Test::new("processes/kill-after-grace", "a container that ignores its signal is killed", kill),
    Test::new("processes/reasons", "exit status and reason say how a container ended", reasons),
    Test::new("processes/image-settings", "user, folder, environment and command come from the image", image),
];

fn exec(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let ended = container.exec(&["sh", "-c", "echo out; echo bad >&2; exit 42"])?;
    let found = (ended.code, ended.stdout.as_str(), ended.stderr.as_str());
    equal("exec", found, (42, "out\n", "bad\n"))?;
    let refused = container.exec(&["/no/such/program"]);
    let said = match refused {
        Ok(ended) => return wrong(format!("it ran: {ended:?}")),
        Err(failure) => failure.refusal()?,
    };
    contains("the error", &said, "/no/such/program")?;
    pod.end()
}

fn exec_timeout(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let said = match container.exec_within(&["sleep", "4713"], Duration::from_secs(3)) {
        Ok(ended) => return wrong(format!("it was not ended: {ended:?}")),
        Err(failure) => failure.refusal()?,
    };
    contains("the error", &said, "DeadlineExceeded")?;
    eventually(SECONDS, || {
        let seen = container.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
        check(!seen.contains("sleep 4713"), || format!("it still runs: {seen}"))
    })?;
    pod.end()
}

fn exec_stream(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let script = "read line; echo got $line; echo bad >&2; read line; exit 5";
    let mut stream = container.exec_stream(&["sh", "-c", script], false)?;
    stream.write(b"pearl\n")?;
    stream.wait_for("got pearl\n")?;
    stream.write(b"\n")?;
    equal("exit status", stream.finish(SECONDS)?, 5)?;
    equal("errors", stream.stderr().as_str(), "bad\n")?;
    // More than fits into any buffer on the way.
    let mut stream = container.exec_stream(&["nacre-probe", "stream", "8388608"], false)?;
    equal("exit status", stream.finish(SECONDS * 2)?, 0)?;
    let mut wanted = vec![0; 8 << 20];
    crate::pattern::Pattern::default().fill(&mut wanted);
    check(stream.received() == wanted, || format!("{} bytes came, or other ones", stream.received().len()))?;
    pod.end()
}

fn exec_terminal(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").start()?;
    let mut stream = container.exec_stream(&["sh"], true)?;
    stream.resize(100, 40)?;
    stream.write(b"until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; tty && echo fi''rst\n")?;
    stream.wait_for("first\r\n")?;
    stream.resize(120, 50)?;
    stream.write(b"until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo sec''ond\n")?;
    stream.wait_for("second\r\n")?;
    stream.write(b"exit 6\n")?;
    equal("exit status", stream.finish(SECONDS)?, 6)?;
    pod.end()
}

fn attach(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "while read line; do echo got $line; done";
    let container = pod.container("one").with(|config| config.stdin = true).script(script).start()?;
    let mut stream = container.attach(true, false)?;
    stream.write(b"one\n")?;
    stream.wait_for("got one\n")?;
    stream.detach();
    let mut again = container.attach(true, false)?;
    again.write(b"two\n")?;
    again.wait_for("got two\n")?;
    container.wait_for("got one\ngot two\n")?;
    pod.end()
}

fn attach_terminal(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").with(|config| (config.stdin, config.tty) = (true, true));
    let container = container.command(&["sh"]).start()?;
    let mut stream = container.attach(true, true)?;
    stream.resize(90, 30)?;
    stream.write(b"until [ \"$(stty size)\" = '30 90' ]; do sleep 0.1; done; tty && echo si''zed\n")?;
    stream.wait_for("sized\r\n")?;
    stream.write(b"exit 4\n")?;
    container.exited(4)?;
    pod.end()
}

fn logs(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "echo first; echo bad >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end";
    let container = pod.container("one").script(script).start()?;
    container.exited(0)?;
    let wanted = format!("first\n{}\nend", "x".repeat(40000));
    let output = eventually(SECONDS, || {
        let output = container.output()?;
        contains("the log", &output, "end").map(|()| output)
    })?;
    // What ends without a line's end is a part, or is given one.
    equal("output", output.trim_end_matches('\n'), wanted.as_str())?;
    let lines = container.lines()?;
    equal("errors", super::logs::join(&lines, "stderr").as_str(), "bad\n")?;
    check(lines.iter().any(|line| line.partial), || "the long line is not in parts".into())?;
    check(lines.is_sorted_by(|a, b| a.stream != b.stream || a.time <= b.time), || {
        "times of a stream go backwards".into()
    })?;
    pod.end()
}

fn rotation(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let container = pod.container("one").script("i=0; while :; do i=$((i+1)); echo $i; sleep 0.3; done");
    let container = container.start()?;
    container.wait_for("3\n")?;
    let old = container.log.with_extension("old");
    fs::rename(&container.log, &old).map_err(Failure::io("can't move the log"))?;
    container.reopen_log()?;
    let last =
        |path: &std::path::Path| super::logs::read(path).map(|lines| super::logs::join(&lines, "stdout"));
    let ended = eventually(SECONDS, || {
        let new = last(&container.log)?;
        check(new.lines().count() >= 2, || format!("the new log has {new:?}")).map(|()| new)
    })?;
    let numbers: Vec<u32> =
        format!("{}{ended}", last(&old)?).lines().filter_map(|line| line.parse().ok()).collect();
    check(numbers.iter().zip(1..).all(|(found, wanted)| *found == wanted), || {
        format!("lines are missing or twice: {numbers:?}")
    })?;
    pod.end()
}

fn grace(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "trap 'echo leaving; sleep 1; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.container("one").script(script).start()?;
    container.wait_for("ready")?;
    container.stop(60)?;
    container.exited(9)?;
    contains("output", &container.output()?, "leaving\n")?;
    pod.end()
}

fn signal_of_image(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "trap 'echo asked; exit 9' USR1; echo ready; while :; do sleep 0.1; done";
    let container = pod.container("one").image("nacre.test/configured:1").script(script).start()?;
    container.wait_for("ready")?;
    container.stop(60)?;
    container.exited(9)?;
    contains("output", &container.output()?, "asked\n")?;
    pod.end()
}

fn kill(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.container("one").script(script).start()?;
    container.wait_for("ready")?;
    let began = Instant::now();
    container.stop(2)?;
    let took = began.elapsed();
    check(took >= Duration::from_secs(2), || format!("killed after {} ms", took.as_millis()))?;
    container.exited(137)?;
    pod.end()
}

fn reasons(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    for (script, code, reason) in
        [("exit 0", 0, "Completed"), ("exit 3", 3, "Error"), ("kill -SEGV $$; sleep 9", 139, "Error")]
    {
        let name = format!("c{code}");
        // The first process of a namespace gets no signal that it does not handle.
        let script = format!("sh -c '{script}'; exit $?");
        let status = pod.container(&name).script(&script).start()?.exited(code)?;
        equal(&script, status.reason.as_str(), reason)?;
        // containerd's own times: that of the start is taken when the runtime has said that it is done.
        check(status.finished_at > status.created_at && status.started_at > 0, || format!("{status:?}"))?;
    }
    pod.end()
}

fn image(context: &Context) -> Outcome {
    let cri = Cri::connect(context)?;
    let pod = cri.pod("a").run()?;
    let shown = pod.container("one").image("nacre.test/configured:1").run()?;
    equal("output", shown.as_str(), "1000\n1000\n1000 2000 2001\n/work\nwhite and round\nfirst second\n")?;
    pod.end()
}
