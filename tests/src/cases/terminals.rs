//! Terminals.

use super::Test;
use crate::context::Context;
use crate::failure::{Outcome, check, equal};
use crate::task::Task;
use crate::terminal::Terminal;
use crate::wait::SECONDS;

pub const TESTS: &[Test] = &[
    Test::new("terminal", "a terminal with size, echo, resize and exit status", of_container),
    Test::new("terminal-interrupt", "Ctrl-C on the terminal interrupts the program", interrupt),
    Test::new("terminal-of-exec", "an exec has a terminal of its own", of_exec),
];

/// The terminal's name, and its size for each line that is typed.
const SIZES: &str =
    "tty; while read line; do echo \"heard $line\"; stty size; [ \"$line\" = end ] && exit 7; done";

fn of_container(context: &Context) -> Outcome {
    let mut terminal = context.container("a").script(SIZES).terminal(33, 111)?;
    terminal.screen.wait_for("/dev/", SECONDS)?;
    settle(&mut terminal, 34, 112)?;
    settle(&mut terminal, 50, 132)?;
    terminal.type_in("hello\n")?;
    terminal.screen.wait_for("heard hello", SECONDS)?;
    let screen = terminal.screen.text();
    check(screen.contains("\r\n"), || format!("no terminal's line ends: {screen:?}"))?;
    terminal.type_in("end\n")?;
    equal("exit status", terminal.finish(SECONDS)?, 7)
}

/// Sets the size and types lines until it is seen: `ctr` passes a new size on in its own time, and misses one that is
/// set between its first look at the terminal and its wait for changes.
fn settle(terminal: &mut Terminal, rows: u16, columns: u16) -> Outcome {
    let size = format!("{rows} {columns}\r");
    crate::wait::eventually(SECONDS, || {
        terminal.resize(rows, columns + 1)?;
        terminal.resize(rows, columns)?;
        terminal.type_in("again\n")?;
        terminal.screen.wait_for(&size, std::time::Duration::from_secs(2))
    })
}

fn interrupt(context: &Context) -> Outcome {
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let mut terminal = context.container("a").script(script).terminal(24, 80)?;
    terminal.screen.wait_for("ready", SECONDS)?;
    terminal.type_in("\x03")?;
    terminal.screen.wait_for("interrupted", SECONDS)?;
    equal("exit status", terminal.finish(SECONDS)?, 9)
}

fn of_exec(context: &Context) -> Outcome {
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    let mut exec = Task::exec_command(&task, "one", &["--tty"], &["sh", "-c", SIZES]);
    let mut terminal = Terminal::start(&mut exec, 24, 80)?;
    terminal.screen.wait_for("/dev/", SECONDS)?;
    settle(&mut terminal, 41, 99)?;
    terminal.type_in("end\n")?;
    equal("exit status", terminal.finish(SECONDS)?, 7)?;
    task.end()
}
