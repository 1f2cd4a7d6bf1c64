use std::os::unix::fs::symlink;
use std::time::Duration;

use async_trait::async_trait;
use nacre_protocol::nacre::{AddVolumesRequest, AddVolumesResponse, ChangeTreeRequest, ChangeTreeResponse};
use nacre_protocol::nacre_ttrpc::{Extension, create_extension};
use slog::{Discard, o};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};

use super::*;

/// An agent that tells what it is asked for.
struct FakeAgent {
    trees: mpsc::UnboundedSender<ChangeTreeRequest>,
    storages: mpsc::UnboundedSender<Storage>,
}

#[async_trait]
impl Extension for FakeAgent {
    async fn change_tree(
        &self,
        _: &TtrpcContext,
        request: ChangeTreeRequest,
    ) -> ttrpc::Result<ChangeTreeResponse> {
        self.trees.send(request).unwrap();
        Ok(ChangeTreeResponse::default())
    }

    async fn add_volumes(
        &self,
        _: &TtrpcContext,
        request: AddVolumesRequest,
    ) -> ttrpc::Result<AddVolumesResponse> {
        for storage in request.storages {
            self.storages.send(storage).unwrap();
        }
        Ok(AddVolumesResponse::default())
    }
}

/// A pod's volumes with a guest to bring them to.
struct World {
    volumes: Volumes,
    agent: Agent,
    trees: mpsc::UnboundedReceiver<ChangeTreeRequest>,
    storages: mpsc::UnboundedReceiver<Storage>,
    _server: Server,
    _running: watch::Sender<Option<crate::vmm::Stopped>>,
}

impl World {
    async fn new() -> Self {
        let ((trees, trees_end), (storages, storages_end)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (client, server_end) = UnixStream::pair().unwrap();
        let once = futures::stream::iter([Ok(server_end)]);
        let mut server = Server::new()
            .add_listener(Listener::new(futures::StreamExt::chain(once, futures::stream::pending())))
            .register_service(create_extension(Arc::new(FakeAgent { trees, storages })));
        server.start().await.unwrap();
        let running = watch::Sender::new(None);
        let agent = Agent::new(client, Duration::from_secs(5), running.subscribe());
        let volumes = volumes();
        Self { volumes, agent, trees: trees_end, storages: storages_end, _server: server, _running: running }
    }

    /// Brings one bind of a container.
    async fn bring(&self, source: &Path, destination: &str, read_only: bool) -> Result<Brought, TaskError> {
        let bind = self.volumes.place(&id("web"), Path::new(destination), source, read_only)?;
        self.volumes.bring(&[bind], &Configuration::default(), &self.agent).await
    }

    /// What is put and removed by the next change.
    async fn change(&mut self) -> (Vec<String>, Vec<String>) {
        let tree = tokio::time::timeout(Duration::from_secs(5), self.trees.recv()).await;
        let tree = tree.expect("no change").unwrap();
        let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
        (
            tree.put.iter().map(|entry| text(&entry.path)).collect(),
            tree.remove.iter().map(|path| text(path)).collect(),
        )
    }
}

/// A folder as kubelet fills it.
fn publish(root: &Path, state: &str, keys: &[&str]) {
    let folder = root.join(state);
    fs::create_dir(&folder).unwrap();
    for key in keys {
        fs::write(folder.join(key), state).unwrap();
    }
    symlink(state, root.join("..data_tmp")).unwrap();
    let old = fs::read_link(root.join("..data")).ok();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    for key in keys {
        let _ = symlink(Path::new("..data").join(key), root.join(key));
    }
    if let Some(old) = old {
        for key in fs::read_dir(root.join(&old)).unwrap().map(|entry| entry.unwrap().file_name()) {
            if !keys.iter().any(|kept| key == *kept) {
                fs::remove_file(root.join(&key)).unwrap();
            }
        }
        fs::remove_dir_all(root.join(old)).unwrap();
    }
}

#[tokio::test]
async fn a_map_that_is_switched_is_followed_until_it_is_as_the_hosts() {
    let folder = tempfile::tempdir().unwrap();
    publish(folder.path(), "..1", &["a", "b"]);
    let mut world = World::new().await;
    world.bring(folder.path(), "/etc/map", true).await.unwrap();
    assert_eq!(world.change().await.0, ["", "..1", "..1/a", "..1/b", "..data", "a", "b"]);

    publish(folder.path(), "..2", &["b", "c"]);

    // It may be seen half-way, as on the host; what counts is what there is in the end.
    let mut there: std::collections::BTreeSet<String> =
        ["", "..1", "..1/a", "..1/b", "..data", "a", "b"].map(str::to_owned).into();
    let wanted: std::collections::BTreeSet<String> =
        ["", "..2", "..2/b", "..2/c", "..data", "b", "c"].map(str::to_owned).into();
    while there != wanted {
        let (put, remove) = world.change().await;
        there.extend(put);
        there.retain(|path| !remove.iter().any(|gone| path == gone || path.starts_with(&format!("{gone}/"))));
    }
}

#[tokio::test]
async fn a_folder_is_followed_until_a_container_may_write() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let mut world = World::new().await;
    world.bring(folder.path(), "/a", true).await.unwrap();
    assert_eq!(world.change().await.0, ["", "sub"]);
    fs::write(folder.path().join("sub/new"), "text").unwrap();
    assert!(world.change().await.0.contains(&"sub/new".to_owned()));

    world.bring(folder.path(), "/b", false).await.unwrap();
    fs::write(folder.path().join("sub/later"), "text").unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(300), async {
        while !world.change().await.0.contains(&"sub/later".to_owned()) {}
    });
    assert!(nothing.await.is_err());
}

#[tokio::test]
async fn an_empty_dir_begins_with_what_the_host_has_and_gets_folders_of_sub_paths() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("pods/u/volumes/kubernetes.io~empty-dir/cache");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("seed"), "text").unwrap();
    let mut world = World::new().await;
    world.bring(&root, "/cache", false).await.unwrap();
    assert_eq!(world.storages.recv().await.unwrap().fstype, "tmpfs");
    assert_eq!(world.change().await.0, ["", "seed"]);

    fs::create_dir_all(root.join("a/b")).unwrap();
    world.bring(&root.join("a/b"), "/part", false).await.unwrap();
    let part = world.trees.recv().await.unwrap();
    assert_eq!(
        part.put.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>(),
        [b"a".to_vec(), b"a/b".to_vec()]
    );
    assert!(part.put.iter().all(|entry| entry.only_if_absent));
    // The volume itself is there already.
    assert!(world.storages.try_recv().is_err());
}

#[tokio::test]
async fn a_file_goes_with_its_container_and_a_large_folder_is_refused_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost").unwrap();
    let mut world = World::new().await;
    let brought = world.bring(&hosts, "/etc/hosts", false).await.unwrap();
    assert!(brought.termination_log().is_none());
    assert_eq!(world.change().await.0, [""]);
    brought.remove(&world.agent).await.unwrap();
    assert_eq!(world.change().await.1, [""]);

    fs::write(folder.path().join("large"), vec![0; 20 << 20]).unwrap();
    let error = world.bring(folder.path(), "/data", false).await.unwrap_err();
    assert!(error.to_string().contains("binds.max_folder_kib"), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    assert_eq!(error.code(), ttrpc::Code::FAILED_PRECONDITION);
}

fn volumes() -> Volumes {
    Volumes::new(Logger::root(Discard, o!()))
}

fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

#[test]
fn a_folder_has_one_copy_and_a_file_one_for_each_container() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let volumes = volumes();
    let place = |container: &str, path: &Path| {
        volumes.place(&id(container), Path::new("/x"), path, true).unwrap().guest
    };
    assert_eq!(place("a", folder.path()), place("b", folder.path()));
    assert_ne!(place("a", &file), place("b", &file));
}

#[test]
fn what_lies_in_a_volume_of_the_pod_is_a_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file"), "").unwrap();
    let volumes = volumes();
    let place = |path: &Path| volumes.place(&id("web"), Path::new("/x"), path, false).unwrap();
    let whole = place(folder.path());
    // Only what has been brought can have parts.
    assert!(matches!(place(&folder.path().join("sub/file")).part, Part::File));
    let Part::Of { volume, .. } = &whole.part else { panic!("a folder is a volume") };
    volume.brought.set(()).unwrap();
    assert_eq!(place(&folder.path().join("sub")).guest, format!("{}/sub", whole.guest));
    assert_eq!(place(&folder.path().join("sub/file")).guest, format!("{}/sub/file", whole.guest));
}

#[test]
fn only_what_no_container_may_write_follows_the_host() {
    let volume = |kind| volumes().volume("/x".into(), kind);
    let folder = volume(Kind::Folder);
    assert!(folder.follows());
    folder.is_written.store(true, Ordering::Relaxed);
    assert!(!folder.follows());
    let map = volume(Kind::Switched);
    map.is_written.store(true, Ordering::Relaxed);
    assert!(map.follows());
    assert!(!volume(Kind::Empty).follows());
}

#[test]
fn an_empty_dir_is_memory_of_the_hosts_size_mode_and_owner() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o2777)).unwrap();
    let volume = volumes().volume(folder.path().into(), Kind::EmptyMemory { size: 65536 });
    let storage = memory(&volume).unwrap();
    let own = nix::unistd::getuid();
    assert_eq!(storage.options[..2], ["mode=2777".to_owned(), format!("uid={own}")]);
    assert_eq!(storage.options[3], "size=65536");
    assert!(storage.shared);
}
