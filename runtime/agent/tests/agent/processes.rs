//! Processes: their ends, signals, streams, terminals and additions.

use nacre_protocol::agent::*;
use nacre_protocol::oci;
use nacre_protocol::protobuf::MessageField;
use nacre_protocol::ttrpc::Code;

use crate::needs_machine;
use crate::support::*;

const SIGUSR1: u32 = 10;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

#[tokio::test]
async fn a_process_that_a_signal_ends_has_128_and_its_number() {
    needs_machine!();
    let agent = Agent::start().await;
    for (id, signal, status) in [("term", SIGTERM, 143), ("kill", SIGKILL, 137)] {
        agent
            .run(id, "trap 'trap - TERM; kill -TERM $$; exit 143' TERM; echo up; while :; do sleep 0.1; done")
            .await;
        agent.read_until(id, "", "up").await;
        agent.signal(id, id, signal).await.unwrap();
        assert_eq!(agent.wait(id, "").await.unwrap(), status);
        // A process that has ended takes any signal.
        agent.signal(id, id, signal).await.unwrap();
        agent.signal(id, "", SIGKILL).await.unwrap();
    }
}

#[tokio::test]
async fn real_time_signals_end_processes_too() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "sleep 1000").await;
    agent.exec("web", "x", process(&["/bin/sleep", "1000"])).await.unwrap();
    agent.signal("web", "x", 40).await.unwrap();
    assert_eq!(agent.wait("web", "x").await.unwrap(), 168);
}

#[tokio::test]
async fn a_signal_without_a_name_goes_to_all_processes() {
    needs_machine!();
    let agent = Agent::start().await;
    // Not SIGINT, which a shell that runs these tests in its background has ignored for all of them.
    agent.run("web", "trap 'echo got' USR1; echo up; while :; do sleep 0.1; done").await;
    agent.read_until("web", "", "up").await;
    agent.exec("web", "x", process(&["/bin/sleep", "1000"])).await.unwrap();
    agent.signal("web", "", SIGUSR1).await.unwrap();
    assert_eq!(agent.wait("web", "x").await.unwrap(), 138);
    agent.read_until("web", "", "got").await;
}

#[tokio::test]
async fn added_processes_have_their_own_code_streams_and_environment() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "sleep 1000").await;
    let mut added = process(&["sh", "-c", "echo $NAME $HOME; pwd; id; echo err >&2; exit 5"]);
    added.Env.push("NAME=value".into());
    added.Cwd = "/work".into();
    added.User =
        MessageField::some(oci::User { UID: 1000, GID: 7, AdditionalGids: vec![8, 9], ..Default::default() });
    agent.exec("web", "x", added).await.unwrap();
    let outcome = agent.outcome("web", "x").await;
    assert_eq!(
        outcome.stdout,
        "value /home/app\n/work\nuid=1000(app) gid=7 groups=7,8,9\n".replace("groups=7,", "groups="),
        "{outcome:?}"
    );
    assert_eq!((outcome.status, outcome.stderr.as_str()), (5, "err\n"));
    assert_eq!(code(agent.wait("web", "x").await).0, Code::NOT_FOUND);
}

#[tokio::test]
async fn a_program_that_can_not_be_run_fails_at_once_with_the_reason() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "sleep 1000").await;
    let text = "exec: \"none\": executable file not found in $PATH".to_owned();
    assert_eq!(code(agent.exec("web", "a", process(&["none"])).await), (Code::NOT_FOUND, text));
    let refused = code(agent.exec("web", "a", process(&["/etc/passwd"])).await);
    assert_eq!(refused, (Code::PERMISSION_DENIED, "exec: \"/etc/passwd\": permission denied".into()));
    let mut nowhere = process(&["true"]);
    nowhere.Cwd = "/nowhere".into();
    let (failed, text) = code(agent.exec("web", "a", nowhere).await);
    assert_eq!(failed, Code::INTERNAL);
    assert!(text.contains("/nowhere"), "{text}");
    // The name is free again.
    agent.exec("web", "a", process(&["true"])).await.unwrap();
    assert_eq!(agent.wait("web", "a").await.unwrap(), 0);
}

#[tokio::test]
async fn a_program_without_a_format_fails_when_it_is_started() {
    needs_machine!();
    let agent = Agent::start().await;
    let root = agent.root("web");
    std::fs::write(root.join("bin/broken"), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.join("bin/broken"), mode).unwrap();
    agent.create("web", spec(&root, &["/bin/broken"])).await.unwrap();
    let (failed, text) = code(agent.start_container("web").await);
    assert_eq!(
        (failed, text.as_str()),
        (Code::FAILED_PRECONDITION, "exec: \"/bin/broken\": exec format error")
    );
    agent.remove("web").await.unwrap();
}

#[tokio::test]
async fn input_is_passed_on_and_can_be_ended() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "cat; echo end").await;
    agent.write("web", "", b"one\n").await;
    agent.write("web", "", b"two\n").await;
    let close = CloseStdinRequest { container_id: "web".into(), ..Default::default() };
    agent.calls.close_stdin(context(), &close).await.unwrap();
    assert_eq!(agent.outcome("web", "").await.stdout, "one\ntwo\nend\n");
}

#[tokio::test]
async fn a_lot_of_output_arrives_complete() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "dd if=/dev/zero bs=64k count=256 2>/dev/null | cat").await;
    assert_eq!(agent.outcome("web", "").await.stdout.len(), 16 << 20);
}

#[tokio::test]
async fn a_terminal_has_a_size_and_echoes() {
    needs_machine!();
    let agent = Agent::start().await;
    let mut terminal =
        spec(&agent.root("web"), &["/bin/sh", "-c", "stty size; read line; stty size; exit 4"]);
    let process = terminal.Process.mut_or_insert_default();
    process.Terminal = true;
    process.ConsoleSize = MessageField::some(oci::Box { Height: 30, Width: 100, ..Default::default() });
    agent.create("web", terminal).await.unwrap();
    agent.start_container("web").await.unwrap();
    agent.read_until("web", "", "30 100").await;
    let resize =
        TtyWinResizeRequest { container_id: "web".into(), row: 40, column: 120, ..Default::default() };
    agent.calls.tty_win_resize(context(), &resize).await.unwrap();
    agent.write("web", "", b"typed\n").await;
    agent.read_until("web", "", "40 120").await;
    assert_eq!(agent.wait("web", "").await.unwrap(), 4);
}

#[tokio::test]
async fn an_added_process_can_have_a_terminal() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "sleep 1000").await;
    let mut terminal = process(&["/bin/sh", "-c", "stty size; echo tty >/dev/tty; exit 6"]);
    terminal.Terminal = true;
    terminal.ConsoleSize = MessageField::some(oci::Box { Height: 33, Width: 77, ..Default::default() });
    agent.exec("web", "t", terminal).await.unwrap();
    let shown = agent.read_until("web", "t", "tty").await;
    assert!(shown.contains("33 77"), "{shown}");
    assert_eq!(agent.wait("web", "t").await.unwrap(), 6);
    let resize = TtyWinResizeRequest { container_id: "web".into(), row: 1, column: 1, ..Default::default() };
    assert_eq!(code(agent.calls.tty_win_resize(context(), &resize).await).0, Code::UNAVAILABLE);
}

#[tokio::test]
async fn a_paused_container_goes_on_when_resumed() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "read line; echo $line").await;
    let pause = PauseContainerRequest { container_id: "web".into(), ..Default::default() };
    agent.calls.pause_container(context(), &pause).await.unwrap();
    assert_eq!(code(agent.exec("web", "x", process(&["true"])).await).0, Code::FAILED_PRECONDITION);
    agent.write("web", "", b"hello\n").await;
    let resume = ResumeContainerRequest { container_id: "web".into(), ..Default::default() };
    agent.calls.resume_container(context(), &resume).await.unwrap();
    assert_eq!(agent.outcome("web", "").await.stdout, "hello\n");
}

#[tokio::test]
async fn the_rest_of_a_container_goes_with_its_first_process() {
    needs_machine!();
    let agent = Agent::start().await;
    agent.run("web", "read line").await;
    agent.exec("web", "x", process(&["/bin/sleep", "1000"])).await.unwrap();
    agent.write("web", "", b"\n").await;
    assert_eq!(agent.wait("web", "").await.unwrap(), 0);
    assert_eq!(agent.wait("web", "x").await.unwrap(), 137);
    assert_eq!(code(agent.exec("web", "y", process(&["true"])).await).0, Code::FAILED_PRECONDITION);
}
