use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

use super::*;

struct World {
    folder: TempDir,
    listener: UnixListener,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("vsock.sock")).unwrap();
        Self { folder, listener }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("vsock.sock")
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().into()
    }

    /// Plays the VMM for one connection.
    async fn accept(&self, port: u32) -> UnixStream {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::with_capacity(13, stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "CONNECT 1027\n");
        let mut stream = stream.into_inner();
        stream.write_all(format!("OK {port}\n").as_bytes()).await.unwrap();
        stream
    }
}

async fn open(world: &World, paths: &Paths, count: u32) -> (Streams, Ports, Vec<UnixStream>) {
    let socket = world.socket();
    let accept = async {
        let mut guests = Vec::new();
        for index in 0..count {
            guests.push(world.accept(4000 + index).await);
        }
        guests
    };
    let (opened, guests) = tokio::join!(Streams::open(paths, true, &socket), accept);
    let (streams, ports) = opened.unwrap();
    (streams, ports, guests)
}

#[tokio::test]
async fn output_arrives_and_the_fifo_ends_with_the_stream() {
    let world = World::new();
    let paths = Paths { stdout: world.fifo("out"), ..Default::default() };
    let mut reader = pipe::OpenOptions::new().open_receiver(&paths.stdout).unwrap();
    let (streams, ports, mut guests) = open(&world, &paths, 1).await;
    assert_eq!(ports, Ports { stdout: 4000, ..Default::default() });

    guests[0].write_all(b"hello").await.unwrap();
    guests[0].shutdown().await.unwrap();
    streams.drained().await;

    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn a_reader_that_stops_stalls_only_its_own_stream_and_loses_nothing() {
    let world = World::new();
    let paths = Paths { stdout: world.fifo("out"), stderr: world.fifo("err"), ..Default::default() };
    let mut slow = pipe::OpenOptions::new().open_receiver(&paths.stdout).unwrap();
    let mut quick = pipe::OpenOptions::new().open_receiver(&paths.stderr).unwrap();
    let (streams, _, mut guests) = open(&world, &paths, 2).await;
    let mut errors = guests.pop().unwrap();
    let mut output = guests.pop().unwrap();

    let much = vec![7; 4 << 20];
    let sent = much.clone();
    let writer = tokio::spawn(async move {
        output.write_all(&sent).await.unwrap();
        output.shutdown().await.unwrap();
    });
    errors.write_all(b"still here").await.unwrap();
    let mut text = [0; 10];
    quick.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"still here");
    assert!(!writer.is_finished());
    // Hanging up does not cut a backlog.
    streams.hang_up(Duration::from_millis(20));

    let mut all = Vec::new();
    slow.read_to_end(&mut all).await.unwrap();
    assert!(all == much);
}

#[tokio::test]
async fn stdin_ends_after_close_and_not_when_a_client_leaves() {
    let world = World::new();
    let paths = Paths { stdin: world.fifo("in"), ..Default::default() };
    let (mut streams, _, mut guests) = open(&world, &paths, 1).await;
    let mut byte = [0; 1];

    for letter in [b"a", b"b"] {
        let mut client = pipe::OpenOptions::new().open_sender(&paths.stdin).unwrap();
        client.write_all(letter).await.unwrap();
        drop(client);
        guests[0].read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, letter);
    }
    streams.close_stdin();
    assert_eq!(guests[0].read(&mut byte).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reader_that_comes_late_gets_all() {
    let world = World::new();
    let paths = Paths { stdout: world.fifo("out"), ..Default::default() };
    let path = paths.stdout.clone();
    let late = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(50));
        std::fs::read(path).unwrap()
    });
    let (_streams, _, mut guests) = open(&world, &paths, 1).await;
    guests[0].write_all(b"hello").await.unwrap();
    drop(guests);
    assert_eq!(late.await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_output_that_a_daemon_holds_open_can_be_let_go() {
    let world = World::new();
    let paths = Paths { stdout: world.fifo("out"), ..Default::default() };
    let _reader = pipe::OpenOptions::new().open_receiver(&paths.stdout).unwrap();
    let (streams, _, _guests) = open(&world, &paths, 1).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), streams.drained()).await.is_err());
    streams.hang_up(Duration::from_millis(20));
    streams.drained().await;
}

#[tokio::test]
async fn a_kind_that_is_not_supported_is_named() {
    let world = World::new();
    let paths = Paths { stdout: "binary:///bin/logger".into(), ..Default::default() };
    let error = Streams::open(&paths, true, &world.socket()).await.unwrap_err();
    assert!(error.to_string().contains("binary://"), "{error}");
    assert_eq!(error.code(), ttrpc::Code::UNIMPLEMENTED);
}
