//! Standard input, output and error.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::Test;
use crate::context::Context;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::pattern::Pattern;
use crate::task::Task;
use crate::wait::SECONDS;

/// For a gigabyte through an emulated processor.
const LARGE_LIMIT: u64 = 1800;

pub const TESTS: &[Test] = &[
    Test::new("stdin-piped", "what is piped in arrives, and its end is seen", piped),
    Test::new("stdin-conversation", "input and output flow while the process runs", conversation),
    Test::new("stdin-of-exec", "an exec has a standard input of its own", of_exec),
    Test::new("stdin-large", "16 MiB through input and back are unchanged", large_input),
    Test::new("stdout-large", "a gigabyte arrives complete and in order", large_output).limit(LARGE_LIMIT),
    Test::new("stdout-and-stderr", "both streams are kept apart", apart),
    Test::new("reader-stops", "a reader that stops reading stalls that stream only", reader_stops),
];

fn piped(context: &Context) -> Outcome {
    let mut running = context.container("a").script("cat; echo end of input").start()?;
    running.write(b"first line\nsecond line without an end")?;
    // ctr forgets an end that it reads before the container has started.
    running.stdout.wait_for("first line\n", SECONDS)?;
    running.close_stdin();
    running.finish(SECONDS)?.wrote("first line\nsecond line without an endend of input\n").map(|_| ())
}

fn conversation(context: &Context) -> Outcome {
    let script = "while read line; do echo \"heard $line\"; done; echo silence";
    let mut running = context.container("a").script(script).start()?;
    for word in ["one", "two", "three"] {
        running.write(format!("{word}\n").as_bytes())?;
        running.stdout.wait_for(&format!("heard {word}\n"), SECONDS)?;
    }
    running.close_stdin();
    running.finish(SECONDS)?.wrote("heard one\nheard two\nheard three\nsilence\n").map(|_| ())
}

fn of_exec(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut exec = task.start_exec("one", &["sh", "-c", "tr a-z A-Z; echo done >&2"])?;
    exec.write(b"pearl")?;
    exec.close_stdin();
    let finished = exec.finish(SECONDS)?;
    contains("standard error", &finished.stderr, "done")?;
    finished.wrote("PEARL")?;
    task.end()
}

fn large_input(context: &Context) -> Outcome {
    const SIZE: usize = 16 << 20;
    let (mut running, mut output) = context.container("a").command(&["cat"]).start_unread()?;
    let reader = std::thread::spawn(move || compare(&mut output, SIZE as u64));
    let mut bytes = vec![0; SIZE];
    Pattern::default().fill(&mut bytes);
    running.write(&bytes)?;
    running.close_stdin();
    reader.join().unwrap_or_else(|_| wrong("the reader panicked"))?;
    running.finish(SECONDS)?.exited(0).map(|_| ())
}

fn large_output(context: &Context) -> Outcome {
    let size = context.options.stdout_mib << 20;
    let container = context.container("a").command(&["nacre-probe", "stream", &size.to_string()]);
    let (mut running, mut output) = container.start_unread()?;
    running.close_stdin();
    compare(&mut output, size)?;
    running.finish(SECONDS)?.exited(0).map(|_| ())
}

/// Reads to the end and compares with the pattern.
fn compare(output: &mut impl Read, size: u64) -> Outcome {
    let (mut found, mut wanted) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    let (mut pattern, mut total) = (Pattern::default(), 0);
    loop {
        let count = match output.read(&mut found) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.map_err(Failure::io("can't read the output"))?,
        };
        if count == 0 {
            return equal("bytes that arrived", total, size);
        }
        let (found, wanted) = (found.get(..count), wanted.get_mut(..count).unwrap_or_default());
        pattern.fill(wanted);
        check(found == Some(wanted), || format!("wrong bytes after byte {total}"))?;
        total += count as u64;
    }
}

fn apart(context: &Context) -> Outcome {
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done";
    let finished = context.container("a").script(script).run()?;
    equal("standard error", finished.stderr.as_str(), "err 1\nerr 2\nerr 3\n")?;
    finished.wrote("out 1\nout 2\nout 3\n").map(|_| ())
}

fn reader_stops(context: &Context) -> Outcome {
    const SIZE: u64 = 32 << 20;
    let script = format!(
        "nacre-probe stream {SIZE} & echo started >&2; \
         while read line; do echo \"heard $line\" >&2; done; wait; echo all written >&2"
    );
    let (mut running, mut output) = context.container("a").script(&script).start_unread()?;
    running.stderr.wait_for("started", SECONDS)?;
    // Nobody reads standard output; the other streams and other processes go on.
    for word in ["one", "two"] {
        running.write(format!("{word}\n").as_bytes())?;
        running.stderr.wait_for(&format!("heard {word}"), SECONDS)?;
    }
    let task = Task::new(context, &context.id("a"));
    task.exec("1", &["sh", "-c", "nacre-probe stream 4000000 | wc -c"])?.wrote("4000000\n")?;
    check(!running.stderr.text().contains("all written"), || {
        format!("{SIZE} bytes were taken although nobody read them")
    })?;
    running.close_stdin();
    compare(&mut output, SIZE)?;
    running.stderr.wait_for("all written", SECONDS)?;
    running.finish(Duration::from_secs(60))?.exited(0).map(|_| ())
}
