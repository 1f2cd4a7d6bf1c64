use std::time::Duration;

use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::protobuf::Message;
use nacre_control::StopReason;
use nacre_protocol::oci;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::Code;

use crate::error::TaskError;
use crate::process::Phase;
use crate::stdio::Paths;
use crate::testing::World;

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

fn exit(event: &containerd_shim_protos::shim::event::Envelope) -> TaskExit {
    assert_eq!(event.topic, "/tasks/exit");
    TaskExit::parse_from_bytes(&event.event.value).unwrap()
}

#[tokio::test]
async fn a_container_lives_once_and_in_order() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.agent.end("web", 42);
    let container = world.pod.container("web").unwrap();
    assert_eq!(container.init.wait().await.status, 42);
    let (_, deleted) = world.pod.delete("web", "").await.unwrap();
    assert_eq!(deleted.status, 42);

    assert_eq!(world.topics(4).await, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    assert!(world.events.try_next().is_none());
    // The lone container's VM went with it, and its folder.
    assert!(!world.folder.path().join("default").exists());
    assert!(matches!(world.pod.container("web"), Err(TaskError::NoContainer(_))));
}

#[tokio::test]
async fn an_exec_has_its_own_life() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.pod.exec("web", "shell", oci::Process::new(), Paths::default()).unwrap();
    world.pod.resize("web", "shell", 24, 80).await.unwrap();
    world.pod.start("web", "shell").await.unwrap();
    world.agent.end("shell", 3);
    let shell = world.pod.container("web").unwrap().process("shell").unwrap();
    assert_eq!(shell.wait().await.status, 3);
    world.pod.delete("web", "shell").await.unwrap();

    let topics = world.topics(5).await;
    assert_eq!(topics[2..], ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]);
    assert!(world.agent.calls.lock().unwrap().contains(&"resize shell 24x80".into()));
    assert!(matches!(world.pod.start("web", "shell").await, Err(TaskError::NoProcess { .. })));
    assert_eq!(world.pod.container("web").unwrap().init.phase(), Phase::Running);
}

#[tokio::test]
async fn an_exec_that_can_not_start_tells_why_and_can_be_deleted() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.agent.refuses.lock().unwrap().push(("exec", Code::NOT_FOUND, "no such program"));
    world.pod.exec("web", "shell", oci::Process::new(), Paths::default()).unwrap();
    let error = world.pod.start("web", "shell").await.unwrap_err();
    assert_eq!(error.to_string(), "no such program");
    world.pod.delete("web", "shell").await.unwrap();
    let topics = world.topics(3).await;
    assert_eq!(topics[2], "/tasks/exec-added");
    assert!(world.events.try_next().is_none());
}

#[tokio::test]
async fn names_are_taken_once() {
    let world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.pod.exec("web", "shell", oci::Process::new(), Paths::default()).unwrap();
    let error = world.pod.exec("web", "shell", oci::Process::new(), Paths::default()).unwrap_err();
    assert_eq!(error.code(), Code::ALREADY_EXISTS);
    let error = world.pod.start("web", "").await.unwrap_err();
    assert_eq!(error.code(), Code::FAILED_PRECONDITION);
    let error = world.pod.delete("web", "").await.unwrap_err();
    assert_eq!(error.code(), Code::FAILED_PRECONDITION);
}

#[tokio::test]
async fn a_signal_reaches_one_process_or_all() {
    let world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.pod.kill("web", "", SIGTERM, false).await.unwrap();
    let init = world.pod.container("web").unwrap().init.clone();
    assert_eq!(init.wait().await.status, 143);
    let error = world.pod.kill("web", "", SIGTERM, true).await.unwrap_err();
    assert_eq!(error.code(), Code::NOT_FOUND);
    assert!(world.agent.calls.lock().unwrap().contains(&"signal web 15".into()));
}

#[tokio::test]
async fn the_end_of_the_vm_ends_every_process_once_and_delete_needs_no_agent() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.pod.exec("web", "shell", oci::Process::new(), Paths::default()).unwrap();
    world.pod.start("web", "shell").await.unwrap();
    let shell = world.pod.container("web").unwrap().process("shell").unwrap();
    world.topics(4).await;

    world.vmm.stop(StopReason::TripleFault);

    assert_eq!(shell.wait().await.status, 137);
    let mut ended = [exit(&world.event().await), exit(&world.event().await)];
    ended.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ended.iter().map(|exit| exit.id.as_str()).collect::<Vec<_>>(), ["shell", "web"]);
    assert!(ended.iter().all(|exit| exit.exit_status == 137 && exit.pid == world.pod.pid()));
    assert_ne!(world.pod.pid(), 0);
    let error = world.pod.stats("web").await.unwrap_err();
    assert_eq!(error.code(), Code::UNAVAILABLE);
    assert!(error.to_string().contains("triple-faulted"), "{error}");
    world.pod.delete("web", "shell").await.unwrap();
    world.pod.delete("web", "").await.unwrap();
    assert_eq!(world.topics(1).await, ["/tasks/delete"]);
    assert!(world.events.try_next().is_none());
}

#[tokio::test]
async fn a_killed_vmm_is_told_apart_from_one_that_gave_a_reason() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.vmm.die();
    let init = world.pod.container("web").unwrap().init.clone();
    assert_eq!(init.wait().await.status, 137);
    let error = world.pod.stats("web").await.unwrap_err().to_string();
    assert!(error.contains("SIGKILL"), "{error}");
}

#[tokio::test]
async fn a_vmm_that_can_not_go_on_tells_why_whoever_asks_it() {
    let mut world = World::new().await;
    let machine = world.pod.running_machine();
    world.vmm.stop(StopReason::Failed("the guest kernel is no ELF file".into()));
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = machine.vmm().grow(crate::vmm::LAYER_DISK, &[file]).await.unwrap_err().to_string();
    assert!(error.contains("the guest kernel is no ELF file"), "{error}");
}

#[tokio::test]
async fn a_hanging_agent_meets_the_deadline_and_sigkill_still_works() {
    let world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    world.agent.hangs.lock().unwrap().extend(["signal", "pause"]);
    let error = world.pod.pause("web").await.unwrap_err();
    assert_eq!(error.code(), Code::DEADLINE_EXCEEDED);
    // As a process that does not get to it: containerd goes on to SIGKILL only after an answer.
    world.pod.kill("web", "", SIGTERM, false).await.unwrap();

    world.pod.kill("web", "", SIGKILL, false).await.unwrap();

    let init = world.pod.container("web").unwrap().init.clone();
    assert_eq!(init.wait().await.status, 137);
    world.pod.delete("web", "").await.unwrap();
}

#[tokio::test]
async fn a_guest_with_disks_writes_them_out_and_one_that_hangs_is_not_waited_for() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    let machine = world.pod.running_machine();
    let asked = || world.agent.calls.lock().unwrap().iter().filter(|call| *call == "destroy ").count();
    world.pod.write_out(&machine).await;
    assert_eq!(asked(), 0, "there are no disks");
    world.pod.ask_to_write_out(&machine).await;
    assert_eq!(asked(), 1);
    world.agent.hangs.lock().unwrap().push("destroy");
    tokio::time::timeout(Duration::from_secs(2), world.pod.ask_to_write_out(&machine)).await.unwrap();
    assert_eq!(asked(), 2);
    world.vmm.die();
    machine.vmm().ended().await;
    world.pod.ask_to_write_out(&machine).await;
    assert_eq!(world.agent.calls.lock().unwrap().iter().filter(|call| *call == "destroy ").count(), 2);
}

#[tokio::test]
async fn freezing_is_announced_and_seen() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    let error = world.pod.pause("web").await.unwrap_err();
    assert_eq!(error.code(), Code::FAILED_PRECONDITION);
    world.pod.start("web", "").await.unwrap();
    world.pod.pause("web").await.unwrap();
    assert!(world.pod.container("web").unwrap().is_paused());
    world.pod.resume("web").await.unwrap();
    let topics = world.topics(4).await;
    assert_eq!(topics[2..], ["/tasks/paused", "/tasks/resumed"]);
}

#[tokio::test]
async fn lack_of_memory_is_announced() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.agent.end("oom", 1);
    assert_eq!(world.topics(2).await, ["/tasks/create", "/tasks/oom"]);
}

#[tokio::test]
async fn an_exit_waits_for_the_output_but_not_for_ever() {
    let mut world = World::new().await;
    let stdout = world.folder.path().join("out");
    nix::unistd::mkfifo(&stdout, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let paths = Paths { stdout: stdout.to_str().unwrap().into(), ..Default::default() };
    let _reader = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
    world.container("web", paths).await;
    let mut stream = world.streams.recv().await.unwrap();
    world.pod.start("web", "").await.unwrap();
    stream.write_all(b"text").await.unwrap();
    world.agent.end("web", 0);

    let init = world.pod.container("web").unwrap().init.clone();
    let soon = tokio::time::timeout(Duration::from_millis(100), init.wait());
    assert!(soon.await.is_err(), "the exit came before the end of the output");
    assert_eq!(init.wait().await.status, 0);
}

#[tokio::test]
async fn an_input_that_was_closed_before_the_start_ends() {
    let mut world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.start("web", "").await.unwrap();
    let stdin = world.folder.path().join("in");
    nix::unistd::mkfifo(&stdin, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let paths = Paths { stdin: stdin.to_str().unwrap().into(), ..Default::default() };
    world.pod.exec("web", "shell", oci::Process::new(), paths).unwrap();

    world.pod.container("web").unwrap().process("shell").unwrap().close_stdin();
    world.pod.start("web", "shell").await.unwrap();

    let mut guest = world.streams.recv().await.unwrap();
    assert_eq!(guest.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_shim_ends_when_no_container_is_left() {
    let world = World::new().await;
    world.container("web", Paths::default()).await;
    world.pod.shut_down(false);
    assert!(tokio::time::timeout(Duration::from_millis(10), world.pod.ended()).await.is_err());
    world.pod.delete("web", "").await.unwrap();
    world.pod.shut_down(false);
    world.pod.ended().await;
}
