//! The agent driven by its protocol, on this machine without a VM.

mod support;

use support::*;

/// Ends a test on a machine where the agent can't run.
macro_rules! needs_machine {
    ($name:literal) => {
        if !possible($name) {
            return;
        }
    };
}

#[tokio::test]
async fn a_container_runs_to_its_exit_code() {
    needs_machine!("a_container_runs_to_its_exit_code");
    let agent = Agent::start().await;
    for (id, script, status) in [("zero", "exit 0", 0), ("one", "exit 1", 1), ("answer", "exit 42", 42)] {
        agent.run(id, &format!("echo out; echo err >&2; {script}")).await;
        let expected = Outcome { status, stdout: "out\n".into(), stderr: "err\n".into() };
        assert_eq!(agent.outcome(id, "").await, expected);
        agent.remove(id).await.unwrap();
    }
    let (log, code) = agent.stop().await;
    assert_eq!(code, 0, "{log:?}");
}
