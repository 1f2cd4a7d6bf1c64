//! The socket from an operator's side, with a fake guest behind the pod.

use nacre_operator::{About, Call, Chunk, Fault, Phase, Reply, Request, ShellEnd, Status, TerminalSize};
use nacre_protocol::nacre::KernelMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::open;
use crate::stdio::Paths;
use crate::testing::World;

struct Connection(BufReader<UnixStream>);

impl Connection {
    async fn say(world: &World, line: &str) -> Self {
        let path = world.pod.running_machine().folder().file(nacre_operator::SOCKET_FILE);
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    async fn ask(world: &World, call: Call) -> Self {
        Self::say(world, &Request::new(call).line()).await
    }

    async fn next<T: Serialize + DeserializeOwned>(&mut self) -> Option<Reply<T>> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        let count = tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap().unwrap();
        (count > 0).then(|| Reply::read(&line).unwrap())
    }
}

async fn world(shell: bool) -> World {
    let world = World::new().await;
    let folder = world.pod.running_machine().folder().clone();
    open(&world.pod, &folder, About { shell, ..Default::default() });
    world
}

#[tokio::test]
async fn the_status_shows_containers_and_calls() {
    let world = world(false).await;
    world.container("web", Paths::default()).await;
    let mut connection = Connection::ask(&world, Call::Status).await;
    let Some(Reply::Ok(status)) = connection.next::<Status>().await else { panic!("no status") };
    assert_eq!((status.phase, status.containers.len()), (Phase::Running, 1));
    assert_eq!((status.containers[0].id.as_str(), status.containers[0].state.as_str()), ("web", "created"));
    assert_eq!(status.calls["create_container"].count, 1);
    assert_eq!(connection.next::<Status>().await, None);
}

#[tokio::test]
async fn a_pod_whose_vm_ended_says_so() {
    let mut world = world(false).await;
    world.vmm.stop(nacre_control::StopReason::Failed("melted".into()));
    world.pod.running_machine().vmm().ended().await;
    let mut connection = Connection::ask(&world, Call::Status).await;
    let Some(Reply::Ok(status)) = connection.next::<Status>().await else { panic!("no status") };
    assert_eq!(status.phase, Phase::Stopped);
    assert!(status.end.unwrap().contains("melted"));
}

#[tokio::test]
async fn an_unknown_call_is_told_apart() {
    let world = world(false).await;
    for line in ["{\"version\":9,\"call\":\"dance\"}\n", "hello\n"] {
        let mut connection = Connection::say(&world, line).await;
        let reply = connection.next::<Status>().await;
        assert!(matches!(reply, Some(Reply::Error { fault: Fault::Unknown, .. })), "{reply:?}");
    }
}

#[tokio::test]
async fn a_guest_that_hangs_hangs_its_own_call_only() {
    let world = world(false).await;
    world.agent.hangs.lock().unwrap().push("details");
    let mut agent = Connection::ask(&world, Call::Agent).await;
    let mut status = Connection::ask(&world, Call::Status).await;
    assert!(matches!(status.next::<Status>().await, Some(Reply::Ok(_))));
    let reply = agent.next::<Status>().await;
    assert!(matches!(reply, Some(Reply::Error { fault: Fault::Unavailable, .. })), "{reply:?}");
}

#[tokio::test]
async fn the_kernels_messages_come_in_lines() {
    let world = world(false).await;
    let text = "virtio is here".to_owned();
    let message = KernelMessage { microseconds: 1_500_000, level: 6, text, ..Default::default() };
    world.agent.kernel.lock().unwrap().push(message);
    let mut connection = Connection::ask(&world, Call::Kernel { follow: false }).await;
    let chunk = connection.next::<Chunk>().await;
    assert_eq!(chunk, Some(Reply::Ok(Chunk { text: "[    1.500000] virtio is here\n".into() })));
    assert_eq!(connection.next::<Chunk>().await, None);
}

#[tokio::test]
async fn the_vmm_tells_what_the_guest_printed() {
    let world = world(false).await;
    let mut connection = Connection::ask(&world, Call::Console).await;
    world.vmm.expect_console_question("panic\n").await;
    assert_eq!(connection.next::<Chunk>().await, Some(Reply::Ok(Chunk { text: "panic\n".into() })));
}

fn shell(container: Option<&str>) -> Call {
    Call::Shell {
        container: container.map(str::to_owned),
        command: vec!["/bin/sh".into()],
        stdin: String::new(),
        stdout: String::new(),
        size: TerminalSize { rows: 24, columns: 80 },
    }
}

#[tokio::test]
async fn a_shell_is_refused_unless_it_is_allowed() {
    let world = world(false).await;
    world.container("web", Paths::default()).await;
    let mut connection = Connection::ask(&world, shell(None)).await;
    let reply = connection.next::<ShellEnd>().await;
    assert!(matches!(reply, Some(Reply::Error { fault: Fault::Refused, .. })), "{reply:?}");
    assert!(!world.agent.calls.lock().unwrap().iter().any(|call| call.starts_with("exec")));
}

#[tokio::test]
async fn a_shell_runs_in_the_only_container_and_leaves_nothing() {
    let mut world = world(true).await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    let mut connection = Connection::ask(&world, shell(None)).await;
    let topics = world.topics(4).await;
    assert_eq!(topics.last().unwrap(), "/tasks/exec-started", "{topics:?}");
    connection.0.get_mut().write_all(b"{\"rows\":50,\"columns\":132}\n").await.unwrap();
    world.agent.end("nacre-shell-0", 7);
    assert_eq!(connection.next::<ShellEnd>().await, Some(Reply::Ok(ShellEnd { exit_status: 7 })));
    assert!(world.pod.container("web").unwrap().exec("nacre-shell-0").is_err());
}

#[tokio::test]
async fn a_shell_whose_operator_went_is_killed() {
    let mut world = world(true).await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    let connection = Connection::ask(&world, shell(Some("web"))).await;
    world.topics(4).await;
    drop(connection);
    assert_eq!(world.event().await.topic, "/tasks/exit");
}
