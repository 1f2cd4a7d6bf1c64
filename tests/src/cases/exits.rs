//! How a container's process ends.

use super::Test;
use crate::context::Context;
use crate::failure::{Outcome, contains, equal};

pub const TESTS: &[Test] = &[
    Test::new("exit-0", "a program's success is ctr's", |context| exits(context, "exit 0", 0)),
    Test::new("exit-1", "exit status 1", |context| exits(context, "exit 1", 1)),
    Test::new("exit-42", "exit status 42", |context| exits(context, "exit 42", 42)),
    Test::new("exit-126", "a file that is no program", |context| exits(context, "/etc/passwd", 126)),
    Test::new("exit-127", "a command that the shell does not find", |context| {
        exits(context, "no-such-command", 127)
    }),
    Test::new("exit-by-signal", "a process killed by a signal exits with 128 and its number", by_signal),
    Test::new("no-such-program", "a program that the image hasn't got is refused by name", no_such_program),
    Test::new("output-before-exit", "what was written just before the exit is not lost", output_before_exit),
    Test::new(
        "image-configuration",
        "user, folder, environment and command of the image",
        image_configuration,
    ),
];

fn exits(context: &Context, script: &str, code: i32) -> Outcome {
    context.container("a").script(script).run()?.exited(code).map(|_| ())
}

fn by_signal(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    // The kernel keeps such signals from the first process of a PID namespace, so other processes get them.
    for (number, name, code) in
        [("1", "KILL", 137), ("2", "TERM", 143), ("3", "SEGV", 139), ("4", "ABRT", 134)]
    {
        task.exec(number, &["sh", "-c", &format!("kill -{name} $$; sleep 1000")])?.exited(code)?;
    }
    task.kill("SIGKILL", &[])?;
    task.wait_for("STOPPED")?;
    equal("exit status of the first process", task.delete()?, 137)
}

fn no_such_program(context: &Context) -> Outcome {
    let finished = context.container("a").command(&["/bin/no-such-program"]).run()?.failed()?;
    contains("the error", &finished.stderr, "no-such-program")?;
    context.gone(&context.id("a"))
}

fn output_before_exit(context: &Context) -> Outcome {
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 3";
    let finished = context.container("a").script(script).run()?.exited(3)?;
    let wanted: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    equal("lines on standard output", finished.stdout, wanted)?;
    contains("standard error", &finished.stderr, "last")
}

fn image_configuration(context: &Context) -> Outcome {
    let container = context.container("a").image("nacre.test/configured:1");
    container.run()?.wrote("1000\n1000\n1000 2000 2001\n/work\nwhite and round\nfirst second\n").map(|_| ())
}
