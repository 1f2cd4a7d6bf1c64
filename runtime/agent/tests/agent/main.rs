//! The agent driven by its protocol, on this machine without a VM.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod processes;
mod setup;
mod support;

use nacre_protocol::agent::*;
use nacre_protocol::health::CheckRequest;
use nacre_protocol::ttrpc::Code;
use support::*;

/// Ends a test on a machine where the agent can't run.
macro_rules! needs_machine {
    () => {
        if !$crate::support::possible() {
            return;
        }
    };
}
pub(crate) use needs_machine;

#[tokio::test]
async fn a_container_runs_to_its_exit_code() {
    needs_machine!();
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

#[tokio::test]
async fn the_agent_says_that_it_serves_and_what_it_is() {
    needs_machine!();
    let agent = Agent::start().await;
    let status = agent.health.check(context(), &CheckRequest::new()).await.unwrap().status;
    assert_eq!(status.value(), 1);
    assert_eq!(agent.health.version(context(), &CheckRequest::new()).await.unwrap().grpc_version, "0.0.1");
    let details = agent.calls.get_guest_details(context(), &GuestDetailsRequest::new()).await.unwrap();
    let details = details.agent_details.unwrap();
    assert!(details.supports_seccomp);
    assert!(details.storage_handlers.contains(&"nacre-layers".to_owned()));
    let metrics = agent.calls.get_metrics(context(), &GetMetricsRequest::new()).await.unwrap().metrics;
    assert!(metrics.contains("kata_guest_meminfo"));
}

#[tokio::test]
async fn nothing_is_left_of_a_removed_container() {
    needs_machine!();
    let agent = Agent::start().await;
    let before = agent.inside();
    agent.run("gone", "sleep 1000 & sleep 1000").await;
    assert_ne!(agent.inside(), before);
    agent.remove("gone").await.unwrap();
    agent.settles_to(&before).await;
    let (code, _) = code(agent.wait("gone", "").await);
    assert_eq!(code, Code::NOT_FOUND);
}

#[tokio::test]
async fn nothing_is_left_of_a_container_that_could_not_be_made() {
    needs_machine!();
    let agent = Agent::start().await;
    let before = agent.inside();
    let root = agent.root("bad");
    let mut bad_mount = spec(&root, &["/bin/true"]);
    bad_mount.Mounts.push(mount("/x", "nonsense", &[]));
    assert_eq!(code(agent.create("bad", bad_mount).await).0, Code::INTERNAL);
    let (failed, text) = code(agent.create("bad", spec(&root, &["/bin/none"])).await);
    assert_eq!(failed, Code::NOT_FOUND);
    assert_eq!(text, r#"exec: "/bin/none": no such file or directory"#);
    agent.settles_to(&before).await;
    agent.create("bad", spec(&root, &["/bin/true"])).await.unwrap();
    agent.start_container("bad").await.unwrap();
    assert_eq!(agent.wait("bad", "").await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_left_of_the_agent_and_the_machine_is_as_before() {
    needs_machine!();
    let before = machine();
    let agent = Agent::start().await;
    let cgroup = agent.cgroup();
    assert!(cgroup.exists(), "{}", cgroup.display());
    agent.run("web", "hostname changed; sleep 1000").await;
    let (log, code) = agent.stop().await;
    assert_eq!(code, 0, "{log:?}");
    assert!(!log.iter().any(|line| line.contains("could not be undone")), "{log:?}");
    assert_eq!(machine(), before);
    assert!(!cgroup.exists());
}

#[tokio::test]
async fn names_are_checked_and_taken_once() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "sleep 1000").await;
    let root = agent.root("other");
    assert_eq!(code(agent.create("web", spec(&root, &["/bin/true"])).await).0, Code::ALREADY_EXISTS);
    for id in ["", "..", "a/b", "-x"] {
        assert_eq!(code(agent.create(id, spec(&root, &["/bin/true"])).await).0, Code::INVALID_ARGUMENT);
    }
    assert_eq!(code(agent.start_container("none").await).0, Code::NOT_FOUND);
    assert_eq!(code(agent.start_container("web").await).0, Code::FAILED_PRECONDITION);
    let again = agent.calls.create_sandbox(context(), &CreateSandboxRequest::new()).await;
    assert_eq!(code(again).0, Code::ALREADY_EXISTS);
    let swap = agent.calls.add_swap(context(), &AddSwapRequest::new()).await;
    assert_eq!(code(swap).0, Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn twenty_containers_at_once_all_run() {
    needs_machine!();
    let agent = std::sync::Arc::new(Agent::start().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let agent = std::sync::Arc::clone(&agent);
        tasks.spawn(async move {
            let id = format!("c{number}");
            agent.run(&id, &format!("echo {number}; exit {number}")).await;
            let outcome = agent.outcome(&id, "").await;
            assert_eq!((outcome.status, outcome.stdout), (number, format!("{number}\n")));
            agent.remove(&id).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_container_that_hangs_does_not_slow_another() {
    needs_machine!();
    let agent = Agent::start().await;
    // Nobody reads its output, and it takes no signal that can be refused.
    agent.run("hangs", "trap '' TERM INT; while :; do echo full full full full; done").await;
    let pause = PauseContainerRequest { container_id: "hangs".into(), ..Default::default() };
    agent.calls.pause_container(context(), &pause).await.unwrap();
    let began = std::time::Instant::now();
    agent.run("quick", "exit 3").await;
    assert_eq!(agent.wait("quick", "").await.unwrap(), 3);
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    agent.remove("hangs").await.unwrap();
}
