//! Events.

use super::Test;
use crate::context::Context;
use crate::events::Events;
use crate::failure::{Outcome, equal};
use crate::wait::SECONDS;

pub const TESTS: &[Test] = &[
    Test::new("events-once", "each event of a container's life comes exactly once, in order", once),
    Test::new("events-exit-status", "the exit event has the exit status", exit_status),
];

fn once(context: &Context) -> Outcome {
    let events = Events::subscribe(context)?;
    let task = context.container("a").command(&["sleep", "1000"]).detach()?;
    task.exec("one", &["true"])?.exited(0)?;
    context.run_ctr(&["task", "pause", &task.id])?.exited(0)?;
    events.wait_for(&task.id, "/tasks/paused")?;
    context.run_ctr(&["task", "resume", &task.id])?.exited(0)?;
    events.wait_for(&task.id, "/tasks/resumed")?;
    task.end()?;
    events.wait_for(&task.id, "/tasks/delete")?;
    // The record's own deletion is the last event that containerd sends.
    events.wait_for(&task.id, "/containers/delete")?;
    let mut found = events.of_task(&task.id);
    // The deletion of an exec is announced by some runtimes only.
    found.retain(|event| event != "/tasks/delete one");
    let wanted = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added one",
        "/tasks/exec-started one",
        "/tasks/exit one",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    equal("events", found, wanted.map(str::to_owned).to_vec())
}

fn exit_status(context: &Context) -> Outcome {
    let events = Events::subscribe(context)?;
    let mut running = context.container("a").script("exit 42").start()?;
    running.close_stdin();
    running.finish(SECONDS * 2)?.exited(42)?;
    let event = events.wait_for(&context.id("a"), "/tasks/exit")?;
    equal("exit_status", event.fields.get("exit_status").cloned(), Some(serde_json::json!(42)))
}
